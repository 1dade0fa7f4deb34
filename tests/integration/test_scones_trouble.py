"""Deployments that meet trouble: each ends with a message that says what to do, and with the old version or the new one. In the order of this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Region, poll

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from helpers_product import GOOD, STACK, Product
from localcloud.errors import ServiceError
from scones.advice import advice
from scones.errors import ExitCode, SconesError

ENDPOINT = "scones-production"
#: Takes its time to load, so that a deployment can be met while it runs.
SLOW = GOOD.replace("def model_fn(model_dir):", "def model_fn(model_dir):\n    import time; time.sleep(2)")
QUOTA = (
    "The account-level service limit 'ml.c6i.large for endpoint usage' is 0 Instances, with current utilization of 0 Instances and a request delta of "
    "1 Instances. Please use AWS Service Quotas to request an increase for this quota."
)


@pytest.fixture(scope="module")
def product(region: Region) -> Product:
    product = Product(region, poll)
    product.deploy()
    return product


def served(product: Product) -> str:
    return str(product.stack()["Outputs"]["ModelPackageArn"])


def serves(product: Product, arn: str) -> bool:
    stack = product.stack()
    return bool(stack) and stack["StackStatus"].endswith("_COMPLETE") and stack["Parameters"]["ModelPackageArn"] == arn


def failed(*arguments: str) -> SconesError:
    error = scones(*arguments).error
    assert isinstance(error, SconesError)
    assert error.exit_code == ExitCode.FAILED
    return error


def test_two_approvals_at_once_end_with_the_later_one(product: Product) -> None:
    first, second = product.register(), product.register()
    for arn in (first, second):
        product.client("sagemaker").update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    poll(lambda: serves(product, second), 60)
    assert product.classify()["decision"] == "needs_review"
    assert product.dead_letters() == []


def test_an_approval_while_a_deployment_runs_is_carried_out_after_it(product: Product) -> None:
    slow, next_one = product.register(SLOW), product.register()
    sagemaker = product.client("sagemaker")
    sagemaker.update_model_package(ModelPackageArn=slow, ModelApprovalStatus="Approved")
    poll(lambda: product.stack()["StackStatus"] == "UPDATE_IN_PROGRESS" and product.stack()["Parameters"]["ModelPackageArn"] == slow)
    sagemaker.update_model_package(ModelPackageArn=next_one, ModelApprovalStatus="Approved")
    poll(lambda: serves(product, next_one), 60)
    assert product.classify()["decision"] == "needs_review"
    assert product.dead_letters() == []


@pytest.fixture
def no_quota(product: Product, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(params: dict[str, Any]) -> None:
        raise ServiceError("ResourceLimitExceeded", QUOTA)

    with monkeypatch.context() as patch:
        patch.setattr(product.region.cloud.services["sagemaker"], "update_endpoint", refuse)
        yield


@pytest.mark.usefixtures("no_quota")
def test_a_quota_that_is_used_up_is_named_and_what_serves_serves_on(product: Product) -> None:
    before = served(product)
    error = failed("deploy", "rollback", "1")
    assert "Version 1 was not deployed" in error.message
    assert QUOTA in error.message
    assert "Version 4 serves on." in str(error.hint)
    assert "The account's quota 'ml.c6i.large for endpoint usage' is 0" in str(error.hint)
    assert served(product) == before
    assert product.stack()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert product.classify()["decision"] == "needs_review"


def test_after_that_the_same_is_deployed(product: Product) -> None:
    assert scones("deploy", "rollback", "1", "--json").document["outcome"] == "updated"


def test_a_permission_that_was_taken_by_hand_comes_back_as_the_advice_says(product: Product) -> None:
    stack = product.client("cloudformation").describe_stack_resource
    role = stack(StackName="scones-platform", LogicalResourceId="ImageClassificationRole")["StackResourceDetail"]["PhysicalResourceId"]
    iam = product.client("iam")
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    iam.delete_role_policy(RoleName=role, PolicyName=policy)
    with pytest.raises(AssertionError, match="AccessDenied"):
        product.classify()
    assert "ImageClassificationRole (AWS::IAM::Role): modified" in scones("aws", "diff").stdout
    assert "scones aws bootstrap --revert-drift puts it right" in str(advice("AccessDenied"))
    assert scones("aws", "bootstrap", "--yes", "--revert-drift", "--json").document["outcome"] == "updated"
    assert product.classify()["decision"] == "needs_review"


def test_an_endpoint_that_was_deleted_by_hand_is_seen_and_the_way_out_works(product: Product) -> None:
    sagemaker, cloudformation = product.client("sagemaker"), product.client("cloudformation")
    sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    assert "Endpoint (AWS::SageMaker::Endpoint): deleted" in scones("aws", "diff").stdout
    error = failed("deploy", "rollback", "2")
    assert "UPDATE_ROLLBACK_FAILED" in error.message
    assert "serves on" not in str(error.hint)
    assert "aws sagemaker create-endpoint" in str(error.hint)
    # As the hint says.
    history = scones("deploy", "history", "--json").document
    config = next(item["endpoint_config"] for item in history if item["version"] == 1)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=config)
    poll(lambda: sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService")
    cloudformation.continue_update_rollback(StackName=STACK)
    poll(lambda: product.stack()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE")
    assert product.classify()["decision"] == "needs_review"
    assert scones("deploy", "rollback", "2", "--json").document["outcome"] == "updated"
    assert product.classify()["decision"] == "needs_review"


def test_a_function_that_was_deleted_by_hand_is_named_and_nothing_else_changes(product: Product) -> None:
    # The smoke test's: without it nothing is deployed, and what serves serves on.
    product.client("lambda").delete_function(FunctionName="scones-smoke-test")
    assert "SmokeTestFunction (AWS::Lambda::Function): deleted" in scones("aws", "diff").stdout
    assert "SmokeTest (Custom::SmokeTest)" in failed("deploy", "rollback", "1").message
    assert product.classify()["decision"] == "needs_review"


def test_a_deleted_stack_with_a_missing_zip_says_so_and_is_made_when_it_is_there_again(product: Product) -> None:
    s3, bucket = product.client("s3"), product.outputs.artifact_bucket_name
    product.client("cloudformation").delete_stack(StackName=STACK)
    poll(lambda: not product.stack(), 60)
    error = scones("deploy", "rollback").error
    assert isinstance(error, SconesError)
    # Where it looked is said, as another region would look the same.
    assert (
        "Nothing is in production: there is no stack scones-inference (AWS in us-east-1, where AWS_ENDPOINT_URL is http://" in error.message
    )
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="code/lambdas/image_classification/")["Contents"]]
    for key in keys:
        s3.delete_object(Bucket=bucket, Key=key)
    product.decide(product.register())
    product.settled("ROLLBACK_COMPLETE")
    # Lambda tries a failed event twice more; one that comes when the zip is there again would make the stack of this version.
    poll(product.dead_letters, 60)
    assert any("NoSuchKey" in reason for reason in product.reasons())
    status = scones("status").stdout
    assert "Upload it again: scones aws bootstrap" in " ".join(status.split())
    assert scones("aws", "bootstrap", "--yes").error is None
    newest = product.register()
    product.decide(newest)
    product.settled("CREATE_COMPLETE", newest)
    assert product.classify()["decision"] == "needs_review"


def test_credentials_that_have_expired_change_nothing_and_are_named(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ServiceError("ExpiredToken", "The security token included in the request is expired", 403)

    before = served(product)
    monkeypatch.setattr(product.region.cloud.services["cloudformation"], "describe_stacks", refuse)
    error = scones("deploy", "rollback").error
    assert isinstance(error, SconesError)
    assert error.exit_code == ExitCode.USAGE
    assert "AWS refuses the credentials: The security token included in the request is expired" in error.message
    assert "Sign in again" in str(error.hint)
    monkeypatch.undo()
    assert served(product) == before
