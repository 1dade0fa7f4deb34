"""`scones aws destroy`: what goes, what stays, that it goes on after it broke off, and that it is a way out. The tests share a region, in the order of this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region, poll

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from helpers_product import GROUP, Product
from helpers_sagemaker import IMAGE
from scones.errors import ExitCode, SconesError

BUCKET = "scones-dev-123456789012-us-east-1"
EXECUTION = "abcdefgh1234"
ANOTHERS_MODEL = "pipelines-zzzzzzzz9999-CreateModel-other"


@pytest.fixture(scope="module")
def product(region: Region) -> Product:
    """A system in use: a platform, a version in production and one before it, staging as a run leaves it, photos with old versions, and things of others."""
    product = Product(region, poll)
    product.deploy()
    for status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        arn = product.register()
        product.decide(arn)
        product.settled(status, arn)
    sagemaker, s3 = product.client("sagemaker"), product.client("s3")
    ours = f"pipelines-{EXECUTION}-CreateModel-x"
    for name in (ours, ANOTHERS_MODEL):
        package = sagemaker.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]["Containers"][0]
        container = {"Image": IMAGE, "ModelDataUrl": package["ModelDataUrl"], "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=product.outputs.model_role_arn, PrimaryContainer=container)
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    for config, model in ((f"scones-staging-{EXECUTION}", ours), ("of-others", ANOTHERS_MODEL)):
        variant = {"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": serverless}
        sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="scones-staging", EndpointConfigName=f"scones-staging-{EXECUTION}")
    for body in (b"first", b"second"):
        s3.put_object(Bucket=BUCKET, Key="raw/photo.png", Body=body)
    s3.delete_object(Bucket=BUCKET, Key="raw/photo.png")
    s3.create_multipart_upload(Bucket=BUCKET, Key="unfinished")
    s3.create_bucket(Bucket="of-others")
    s3.put_object(Bucket="of-others", Key="x", Body=b"x")
    return product


def refused(*arguments: str, typed: str | None = None) -> SconesError:
    error = scones("aws", "destroy", *arguments, typed=typed).error
    assert isinstance(error, SconesError)
    return error


def stacks(product: Product) -> dict[str, str]:
    return {stack["StackName"]: stack["StackStatus"] for stack in product.client("cloudformation").describe_stacks()["Stacks"]}


def others_are_untouched(product: Product) -> bool:
    sagemaker = product.client("sagemaker")
    sagemaker.describe_endpoint_config(EndpointConfigName="of-others")
    sagemaker.describe_model(ModelName=ANOTHERS_MODEL)
    return bool(product.client("s3").list_objects_v2(Bucket="of-others")["KeyCount"] == 1)


def test_a_dry_run_says_what_goes_and_what_stays_and_removes_nothing(product: Product) -> None:
    before = scones("aws", "destroy", "--dry-run", "--json").document["before"]
    inference, platform = before["stacks"]
    assert (inference["stack"], inference["stays"]) == ("scones-inference", [])
    assert {"ArtifactBucket", "ModelPackageGroup"} <= set(platform["stays"])
    assert {"DeployFunction", "PipelineRole", "ApprovalRule"} <= set(platform["goes"])
    # Of the version before, which CloudFormation kept, as well.
    assert [name for name in before["models"] if name.startswith("pipelines-")] == [f"pipelines-{EXECUTION}-CreateModel-x"]
    assert f"scones-staging-{EXECUTION}" in before["endpoint_configs"]
    assert (len(before["models"]), len(before["endpoint_configs"])) == (2, 2)
    serving = product.client("sagemaker").describe_endpoint(EndpointName="scones-production")["EndpointConfigName"]
    assert serving not in before["endpoint_configs"]
    text = scones("aws", "destroy", "--dry-run", "--delete-data").stdout
    assert "Goes, and cannot be brought back:" in text
    assert f"the bucket {BUCKET}: " in text
    assert set(stacks(product)) == {"scones-platform", "scones-inference"}


def test_only_the_projects_name_removes_anything(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused()
    assert error.exit_code == ExitCode.USAGE
    assert "--confirm scones" in str(error.hint)
    assert "is not the name of the project, which is scones" in refused("--confirm", "muffins").message
    monkeypatch.setattr("scones.asking._require_terminal", lambda option: None)
    answer = scones("aws", "destroy", typed="muffins\n")
    assert isinstance(answer.error, SconesError)
    assert answer.error.exit_code == ExitCode.FAILED
    # Before it asks it says what the decision costs.
    plan, _, question = answer.stderr.partition("all of it goes on costing about < 0.01 USD a month")
    assert "Stays (--delete-data takes it too):" in plan
    assert "type the project's name (scones)" in question
    assert set(stacks(product)) == {"scones-platform", "scones-inference"}


def test_it_breaks_off_and_goes_on_and_keeps_the_data(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    from infrastructure.removal import Removal

    def broken(*_: Any) -> None:
        raise SconesError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(Removal, "_remove_staging", broken)
        assert refused("--confirm", "scones").message == "broken off"
    assert set(stacks(product)) == {"scones-platform"}
    answer = scones("aws", "destroy", "--confirm", "scones")
    assert answer.error is None
    assert "Left is data, for about" in answer.stdout
    assert "scones aws bootstrap --aws" in answer.stdout
    # The platform's stack owns its data still, and nothing else.
    resources = product.client("cloudformation").describe_stack_resources(StackName="scones-platform")["StackResources"]
    left = {item["LogicalResourceId"] for item in resources if item["ResourceStatus"] != "DELETE_COMPLETE"}
    assert {"ArtifactBucket", "ModelPackageGroup"} <= left
    assert not left & {"DeployFunction", "PipelineRole", "ApprovalRule"}
    versions = product.client("s3").list_object_versions(Bucket=BUCKET, Prefix="raw/")
    assert (len(versions["Versions"]), len(versions["DeleteMarkers"])) == (2, 1)
    assert len(product.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]) == 2
    assert product.client("sagemaker").list_endpoints()["Endpoints"] == []
    assert product.client("iam").list_roles()["Roles"] == []
    assert [item["EndpointConfigName"] for item in product.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]] == ["of-others"]
    assert [item["ModelName"] for item in product.client("sagemaker").list_models()["Models"]] == [ANOTHERS_MODEL]
    assert others_are_untouched(product)


def test_again_there_is_nothing_to_do(product: Product) -> None:
    assert scones("aws", "destroy", "--json").document["outcome"] == "nothing to do"


def test_a_decision_that_nothing_would_carry_out_is_refused(product: Product) -> None:
    before = scones("models", "list", "--json").document
    error = scones("models", "approve", "1").error
    assert isinstance(error, SconesError)
    assert "The stack scones-platform has no deploying function" in error.message
    assert "scones aws bootstrap" in str(error.hint)
    assert scones("models", "list", "--json").document == before


def test_bootstrap_brings_the_rest_back_to_the_same_data(product: Product) -> None:
    plan = scones("aws", "bootstrap", "--dry-run", "--json").document
    assert plan["steps"] == 1
    assert {change["action"] for change in plan["changes"]} <= {"Add", "Modify"}
    assert not any(change["loses_data"] for change in plan["changes"])
    assert scones("aws", "bootstrap", "--yes", "--json").document["artifact_bucket"] == BUCKET
    product.deploy()
    arn = product.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"][0]["ModelPackageArn"]
    product.decide(arn)
    product.settled("CREATE_COMPLETE", arn)


def test_with_a_platform_that_was_deleted_by_hand_nothing_is_removed_before_it_is_back(product: Product, tmp_path: Path) -> None:
    client = product.client("cloudformation")
    client.delete_stack(StackName="scones-platform")
    product.wait(lambda: "scones-platform" not in stacks(product))
    assert "with it the role that takes the stack scones-inference away; nothing was removed" in refused("--dry-run").message
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    error = scones("classify", str(photo)).error
    assert isinstance(error, SconesError)
    assert (error.exit_code, "scones aws bootstrap" in str(error.hint)) == (ExitCode.USAGE, True)
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "created"
    # Production has roles that are gone: that is a difference, and the next deployment's to mend.
    production = next(stack for stack in scones("aws", "diff", "--json").document if stack["stack"] == "scones-inference")
    assert any(item["name"] == "Role" for change in production["changes"] for item in change["properties"])


def test_a_protected_stack_is_refused_before_anything_is_gone(product: Product) -> None:
    client = product.client("cloudformation")
    client.update_termination_protection(StackName="scones-platform", EnableTerminationProtection=True)
    before = stacks(product)
    for how in ("--dry-run", "--confirm=scones"):
        error = scones("aws", "destroy", how, "--delete-data").error
        assert isinstance(error, SconesError)
        assert "scones-platform is protected against deletion; nothing was removed" in error.message
    assert stacks(product) == before
    client.update_termination_protection(StackName="scones-platform", EnableTerminationProtection=False)


def test_with_its_data_nothing_is_left(product: Product) -> None:
    answer = scones("aws", "destroy", "--confirm", "scones", "--delete-data", "--json")
    assert answer.document["outcome"] == "removed"
    assert stacks(product) == {}
    assert BUCKET not in {bucket["Name"] for bucket in product.client("s3").list_buckets()["Buckets"]}
    with pytest.raises(ClientError, match="does not exist"):
        product.client("sagemaker").describe_model_package_group(ModelPackageGroupName=GROUP)
    assert others_are_untouched(product)
    assert scones("aws", "destroy").stdout == "Nothing of the project scones is left.\n"


def test_a_fresh_platform_can_be_made_after_that(product: Product) -> None:
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "created"


def test_a_function_that_was_deleted_by_hand_comes_back_as_the_advice_says(product: Product) -> None:
    s3, cloudformation = product.client("s3"), product.client("cloudformation")
    s3.put_object(Bucket=BUCKET, Key="raw/photo.png", Body=b"kept")
    product.register()
    product.client("lambda").delete_function(FunctionName="scones-deploy-inference-workflow")
    error = scones("aws", "bootstrap", "--yes", "--set", "evaluation.confidence_threshold=0.8").error
    assert isinstance(error, SconesError)
    assert error.exit_code == ExitCode.FAILED
    assert "UPDATE_ROLLBACK_FAILED" in error.message
    for step in (
        "scones aws diff",
        "continue-update-rollback --stack-name STACK --resources-to-skip ID",
        "scones aws destroy",
        "scones aws bootstrap",
    ):
        assert step in str(error.hint)
    assert "DeployFunction (AWS::Lambda::Function): deleted" in scones("aws", "diff").stdout
    for how in ("--dry-run", "--confirm=scones"):
        assert "scones-platform is in UPDATE_ROLLBACK_FAILED" in refused(how).message
    cloudformation.continue_update_rollback(StackName="scones-platform", ResourcesToSkip=["DeployFunction"])
    poll(lambda: stacks(product)["scones-platform"] == "UPDATE_ROLLBACK_COMPLETE")
    assert scones("aws", "destroy", "--confirm", "scones").error is None
    assert scones("aws", "bootstrap", "--yes").error is None
    product.client("lambda").get_function(FunctionName="scones-deploy-inference-workflow")
    assert s3.get_object(Bucket=BUCKET, Key="raw/photo.png")["Body"].read() == b"kept"
    assert [item["version"] for item in scones("models", "list", "--json").document] == [1]
    assert "sources: nothing would change\n  by hand: nothing was changed" in scones("aws", "diff").stdout
