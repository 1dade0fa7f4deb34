"""The product's templates on a running region: deployed, updated, rolled back and deleted, and what people are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from helpers_product import ACCOUNT, GROUP, REGION, Product

PIPELINE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{GROUP}"


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    product = Product(region, poll)
    product.deploy()
    product.listen()
    return product


def test_people_are_told_which_step_failed_and_why(product: Product) -> None:
    detail: dict[str, Any] = {
        "failureReason": 'Quality gate missed: test accuracy 0.71; required: at least 0.9 (MinimumAccuracy), "as agreed".',
        "metadata": {},
        "stepName": "QualityGateMissed",
        "stepType": "Fail",
        "previousStepStatus": "Executing",
        "currentStepStatus": "Failed",
        "pipelineArn": PIPELINE,
        "pipelineExecutionArn": f"{PIPELINE}/execution/abc123",
    }
    other = detail | {"stepName": "Elsewhere", "pipelineArn": f"{PIPELINE}-of-others"}
    for one in (other, detail):
        product.region.cloud.emit("aws.sagemaker", "SageMaker Model Building Pipeline Execution Step Status Change", one)
    told = product.told("QualityGateMissed")
    assert detail["failureReason"] in told.replace('\\"', '"')
    assert "execution/abc123" in told


def test_people_are_told_of_a_version_that_waits_for_them(product: Product) -> None:
    arn = product.register()
    told = product.told("waits for your decision")
    assert f"Version {arn.rpartition('/')[2]} of the model {GROUP}" in told
