"""What deployments and executions leave behind goes after a while; what serves, the last before it, and what others have stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helpers_product import Product
from infrastructure.deploy import refresh_inference
from lambdas.deploy_inference_workflow.retirement import Hosting

FUNCTIONS = ("serialize-image-data", "image-classification", "filter-low-confidence-inferences")
PROJECT = [{"Key": "project", "Value": "scones"}]


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    product = Product(region, poll)
    product.deploy(kept_versions=1)
    return product


def test_the_version_before_stays_with_its_configuration_and_older_ones_go(product: Product) -> None:
    sagemaker, functions = product.client("sagemaker"), product.client("lambda")
    container = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1"}
    # Staging's of two earlier executions, and somebody else's of which nobody can tell whether it is still wanted.
    for name, tags in (("scones-staging-a", PROJECT), ("scones-staging-b", PROJECT), ("scones-by-hand", [])):
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=product.outputs.model_role_arn, Tags=tags)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    configs = product.region.cloud.db.table("sagemaker.endpoint_configs")
    for hours, name in ((3, "scones-staging-a"), (2, "scones-staging-b"), (4, "scones-by-hand")):
        configs.update(name, CreationTime=configs.get(name)["CreationTime"] - timedelta(hours=hours))

    versions = [product.register() for _ in range(3)]
    for number, version in enumerate(versions):
        # Each with settings of its own, so that the functions are published anew.
        product.deploy(kept_versions=1, confidence_threshold=0.5 + number / 10)
        product.decide(version)
        product.settled("UPDATE_COMPLETE" if number else "CREATE_COMPLETE", version)
        if number == 1:
            assert [config.package for config in Hosting(sagemaker, "scones").configs() if config.package] == versions[1::-1]

    def retired() -> bool:
        log = product.log("/aws/lambda/scones-deploy-inference-workflow")
        return sum('"message":"Retired versions taken away"' in line for line in log) == len(versions)

    product.wait(retired)
    hosting = Hosting(sagemaker, "scones")
    production = [config for config in hosting.configs() if config.package]
    assert [config.package for config in production] == [versions[2], versions[1]]
    serving = sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"]
    assert production[0].name == serving
    assert [config.name for config in hosting.configs() if not config.package] == ["scones-staging-b"]
    models = {model["ModelName"] for model in sagemaker.list_models()["Models"]}
    assert models == {model for config in production for model in config.models} | {"scones-staging-b", "scones-by-hand"}
    for name in FUNCTIONS:
        listed = functions.list_versions_by_function(FunctionName=f"scones-{name}")["Versions"]
        assert [version["Version"] for version in listed] == ["$LATEST", "2", "3"]
    assert product.classify()["decision"] == "accepted"


def test_the_endpoint_can_be_switched_to_what_is_kept_and_the_next_deployment_takes_that_back(product: Product) -> None:
    sagemaker = product.client("sagemaker")
    serving, before = [config for config in Hosting(sagemaker, "scones").configs() if config.package]
    sagemaker.update_endpoint(EndpointName="scones-production", EndpointConfigName=before.name)
    product.wait(lambda: sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"] == before.name)
    assert product.classify()["decision"] == "accepted"
    product.deploy(kept_versions=1, confidence_threshold=0.85)
    assert refresh_inference(product, product.outputs) == "updated"
    assert sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"] == before.name
    version = product.register()
    product.decide(version)
    product.settled("UPDATE_COMPLETE", version)
    assert sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"] not in (before.name, serving.name)
