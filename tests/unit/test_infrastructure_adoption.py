"""What outlived a platform stack: what is taken over, whose it must be, and what is asked of AWS for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from helpers_aws import ACCOUNT, REGION, AwsError, fake_client
from infrastructure.adoption import Adoption
from infrastructure.deploy import PlatformParameters
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.errors import DeploymentError
from lambdas.deploy_inference_workflow.stacks import Stack, StackState

BUCKET = f"scones-dev-{ACCOUNT}-{REGION}"
GROUP = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package-group/scones-vehicle-classifier"
OURS = {"project": "scones", "stage": "dev"}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/cloudformation"


class FakeAccount:
    """An account with a bucket, a model package group and no stack; stands in for a boto3 session."""

    def __init__(self) -> None:
        self.bucket: dict[str, str] | str = OURS
        self.group: dict[str, str] = OURS
        self.policy = False
        self.requests: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []

    def client(self, service: str) -> Any:
        return {
            "s3": lambda: fake_client("s3", GetBucketTagging=self._bucket_tags, GetBucketPolicy=self._policy),
            "sagemaker": lambda: fake_client(
                "sagemaker",
                DescribeModelPackageGroup=lambda params: {
                    "ModelPackageGroupName": params["ModelPackageGroupName"],
                    "ModelPackageGroupArn": GROUP,
                    "CreationTime": 0,
                    "CreatedBy": {},
                    "ModelPackageGroupStatus": "Completed",
                },
                ListTags=lambda params: {"Tags": tags(self.group)},
            ),
            "sts": lambda: fake_client("sts", GetCallerIdentity=lambda params: {"Account": ACCOUNT}),
            "cloudformation": lambda: fake_client(
                "cloudformation", DescribeStacks=self._no_stack, CreateChangeSet=self._create, DescribeChangeSet=self._describe
            ),
        }[service]()

    def _bucket_tags(self, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(params)
        if isinstance(self.bucket, str):
            raise AwsError(self.bucket, "no")
        return {"TagSet": tags(self.bucket)}

    def _policy(self, params: dict[str, Any]) -> dict[str, Any]:
        if not self.policy:
            raise AwsError("NoSuchBucketPolicy", "The bucket policy does not exist")
        return {"Policy": "{}"}

    def _no_stack(self, params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationError", f"Stack with id {params['StackName']} does not exist")

    def _create(self, params: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(params)
        return {"Id": "arn:aws:cloudformation:::changeSet/x/1", "StackId": "arn:aws:cloudformation:::stack/x/1"}

    def _describe(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"Status": "CREATE_COMPLETE", "Changes": []}


def tags(of: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in of.items()]


@pytest.fixture
def account() -> FakeAccount:
    return FakeAccount()


def adoption(account: FakeAccount, **parameters: Any) -> Adoption:
    chosen = PlatformParameters(**parameters)
    deadline = time.monotonic() + 10
    stack = Stack(account.client("cloudformation"), chosen.stack_name, lambda: deadline - time.monotonic())
    return Adoption(account, stack, chosen.project, chosen.stage, chosen.for_template(), role_arn=ROLE)


def test_bucket_and_group_are_imported_with_what_makes_them_out_only_and_with_the_role_that_was_named(account: FakeAccount) -> None:
    ours = adoption(account)
    ours.plan(ours.found())
    (request,) = account.requests
    assert (request["ChangeSetType"], request["RoleARN"]) == ("IMPORT", ROLE)
    assert {item["LogicalResourceId"]: item["ResourceIdentifier"] for item in request["ResourcesToImport"]} == {
        "ArtifactBucket": {"BucketName": BUCKET},
        "ModelPackageGroup": {"ModelPackageGroupArn": GROUP},
    }
    template = Template.parse(request["TemplateBody"])
    assert {name: set(resource.properties) for name, resource in template.resources.items()} == {
        "ArtifactBucket": {"BucketName"},
        "ModelPackageGroup": {"ModelPackageGroupName", "ModelPackageGroupDescription"},
    }
    assert all(resource.holds_on for resource in template.resources.values())
    assert "Outputs" not in template.document
    assert {item["ParameterKey"] for item in request["Parameters"]} <= set(template.parameters)


def test_a_bucket_counts_in_this_account_only(account: FakeAccount) -> None:
    adoption(account).found()
    assert account.asked == [{"Bucket": BUCKET, "ExpectedBucketOwner": ACCOUNT}]


@pytest.mark.parametrize("code", ["NoSuchBucket", "AccessDenied"])
def test_a_bucket_that_is_not_there_or_somebody_elses_is_not_taken_over(account: FakeAccount, code: str) -> None:
    account.bucket = code
    assert [item.logical_id for item in adoption(account).found()] == ["ModelPackageGroup"]


@pytest.mark.parametrize(("found", "words"), [({}, "it has no tag project"), (OURS | {"stage": "prod"}, "its tag stage is prod")])
@pytest.mark.parametrize("what", ["bucket", "group"])
def test_what_is_of_another_project_or_stage_is_refused(account: FakeAccount, what: str, found: dict[str, str], words: str) -> None:
    setattr(account, what, found)
    with pytest.raises(DeploymentError, match=words):
        adoption(account).found()


def test_without_tags_it_is_nobodys(account: FakeAccount) -> None:
    account.bucket = "NoSuchTagSet"
    with pytest.raises(DeploymentError, match="already exists, and is not ours"):
        adoption(account).found()


def test_a_bucket_with_a_policy_of_somebody_is_left_to_a_person(account: FakeAccount) -> None:
    account.policy = True
    ours = adoption(account)
    with pytest.raises(DeploymentError, match="delete-bucket-policy"):
        ours.plan(ours.found())
    assert account.requests == []


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED"])
def test_where_there_is_a_stack_nothing_is_taken_over(account: FakeAccount, status: str) -> None:
    assert not adoption(account).adopt(StackState("id", status, {}, {"ArtifactBucketName": BUCKET}))
    assert account.requests == []


@pytest.mark.parametrize(
    ("status", "outputs", "leftover"),
    [
        ("IMPORT_ROLLBACK_COMPLETE", {}, True),
        ("IMPORT_ROLLBACK_COMPLETE", {"ArtifactBucketName": BUCKET}, False),
        ("IMPORT_COMPLETE", {}, False),
        ("UPDATE_FAILED", {"ArtifactBucketName": BUCKET}, False),
        ("DELETE_FAILED", {"ArtifactBucketName": BUCKET}, True),
    ],
)
def test_only_a_stack_in_which_nothing_ever_served_is_a_leftover(status: str, outputs: dict[str, str], leftover: bool) -> None:
    assert StackState("id", status, {}, outputs).is_leftover is leftover
