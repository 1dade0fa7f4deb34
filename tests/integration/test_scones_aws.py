"""`scones aws` against a region: what it shows, what it changes, and that it goes on where it broke off.

The tests share a region and run in the order of this file. `--aws` with AWS_ENDPOINT_URL makes them the commands as typed on AWS.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from conftest import Region

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from infrastructure.adoption import Adoption
from infrastructure.deploy import PlatformParameters, watched_stack
from infrastructure.packaging import PLATFORM_TEMPLATE
from localcloud.errors import ServiceError
from scones.cli import cli
from scones.errors import ExitCode, SconesError

PLATFORM = "scones-platform"
BUCKET = "scones-dev-123456789012-us-east-1"


def stacks(region: Region) -> dict[str, str]:
    return {stack["StackName"]: stack["StackStatus"] for stack in region.client("cloudformation").describe_stacks()["Stacks"]}


def waiting(region: Region) -> list[str]:
    summaries = region.client("cloudformation").list_change_sets(StackName=PLATFORM)["Summaries"]
    return [item["ChangeSetName"] for item in summaries if item["ExecutionStatus"] == "AVAILABLE"]


# --- bootstrap ------------------------------------------------------------------------------------------------------------------------------


def test_a_dry_run_in_a_fresh_account_shows_both_steps_and_leaves_nothing(region: Region) -> None:
    answer = scones("aws", "bootstrap", "--dry-run", "--json")
    plan = answer.document
    assert (plan["outcome"], plan["steps"], plan["status"]) == ("planned", 2, None)
    assert {change["action"] for change in plan["changes"]} == {"Add"}
    assert "ArtifactBucket" in {change["resource"] for change in plan["changes"]}
    assert "DeployFunction" in {change["resource"] for change in plan["later_steps"]}
    assert plan["costs"]["monthly"] >= plan["costs"]["monthly_when_idle"] > 0
    assert stacks(region) == {}
    text = scones("aws", "bootstrap", "--dry-run").stdout
    for words in ("Step 1 of 2", "Step 2 of 2", "cost a month, about", "of that"):
        assert words in text
    assert region.client("s3").list_buckets()["Buckets"] == []


def test_without_a_terminal_it_asks_for_the_option_and_leaves_nothing(region: Region) -> None:
    answer = scones("aws", "bootstrap")
    assert isinstance(answer.error, SconesError)
    assert answer.error.exit_code == ExitCode.USAGE
    assert "--yes" in str(answer.error.hint)
    assert stacks(region) == {}


def test_saying_no_leaves_nothing(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.asking._require_terminal", lambda option: None)
    answer = scones("aws", "bootstrap", typed="n\n")
    assert isinstance(answer.error, SconesError)
    assert answer.error.exit_code == ExitCode.FAILED
    assert "Step 1 of 2" in answer.stderr
    assert stacks(region) == {}


def test_another_persons_change_set_survives_a_dry_run(region: Region) -> None:
    client = region.client("cloudformation")
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    client.create_change_set(StackName=PLATFORM, ChangeSetName="of-somebody-else", ChangeSetType="CREATE", TemplateBody=template)
    assert scones("aws", "bootstrap", "--dry-run", "--json").document["outcome"] == "planned"
    assert stacks(region) == {PLATFORM: "REVIEW_IN_PROGRESS"}
    assert [item["ChangeSetName"] for item in client.list_change_sets(StackName=PLATFORM)["Summaries"]] == ["of-somebody-else"]
    client.delete_stack(StackName=PLATFORM)


def test_a_leftover_of_a_failed_creation_is_shown_and_replaced(region: Region, poll: Callable[..., Any]) -> None:
    client = region.client("cloudformation")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "the-same-name"}}
    client.create_stack(StackName=PLATFORM, TemplateBody=json.dumps({"Resources": {"A": bucket, "B": {**bucket, "DependsOn": "A"}}}))
    poll(lambda: stacks(region) == {PLATFORM: "ROLLBACK_COMPLETE"})
    text = scones("aws", "bootstrap", "--dry-run").stdout
    assert "is in ROLLBACK_COMPLETE: nothing in it serves" in text
    assert stacks(region) == {PLATFORM: "ROLLBACK_COMPLETE"}


def test_it_makes_the_platform_in_two_steps_and_says_what_is_next(region: Region) -> None:
    answer = scones("aws", "bootstrap", "--yes")
    assert answer.error is None
    assert f"is created; images, code and models go to {BUCKET}" in answer.stdout
    assert "scones run --aws" in answer.stdout
    assert "files uploaded" in answer.stderr
    assert stacks(region) == {PLATFORM: "UPDATE_COMPLETE"}
    region.client("lambda").get_function(FunctionName="scones-deploy-inference-workflow")


def test_again_it_says_that_nothing_changes(region: Region) -> None:
    client = region.client("cloudformation")

    def history() -> tuple[int, int]:
        return len(client.describe_stack_events(StackName=PLATFORM)["StackEvents"]), len(waiting(region))

    before = history()
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "unchanged"
    assert history() == before


def test_what_a_setting_changes_is_shown_to_the_last_property(region: Region) -> None:
    text = scones("aws", "bootstrap", "--dry-run", "--set", "evaluation.confidence_threshold=0.8").stdout
    assert "STACK_PARAMETERS.ConfidenceThreshold" in text
    assert "0.93 → 0.8" in text


def test_a_change_that_fails_is_taken_back_whole(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    function = {"FunctionName": "scones-deploy-inference-workflow"}
    before = region.client("lambda").get_function_configuration(**function)["Environment"]
    service = region.cloud.services["lambda"]
    works, refusals = service.update_function_configuration, iter(["the runtime is not available"])

    def refuse_once(params: dict[str, Any]) -> Any:
        for reason in refusals:
            raise ServiceError("InvalidParameterValueException", reason)
        return works(params)

    with monkeypatch.context() as patch:
        patch.setattr(service, "update_function_configuration", refuse_once)
        error = scones("aws", "bootstrap", "--yes", "--set", "evaluation.confidence_threshold=0.8").error
    assert isinstance(error, SconesError)
    assert error.exit_code == ExitCode.FAILED
    assert "the runtime is not available" in error.message
    assert stacks(region) == {PLATFORM: "UPDATE_ROLLBACK_COMPLETE"}
    assert region.client("lambda").get_function_configuration(**function)["Environment"] == before
    # What the stack is says what is there: with the old settings there is nothing to do.
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "unchanged"


def test_a_replaced_bucket_is_kept_and_the_wrong_stage_is_pointed_out(region: Region) -> None:
    answer = scones("aws", "bootstrap", "--dry-run", "--stage", "staging")
    assert "is of the stage dev, not staging" in answer.stdout
    assert "replace, the old one is kept" in answer.stdout


def test_a_code_file_that_was_deleted_is_uploaded_again(region: Region) -> None:
    s3 = region.client("s3")
    key = s3.list_objects_v2(Bucket=BUCKET, Prefix="code/lambdas/")["Contents"][0]["Key"]
    s3.delete_object(Bucket=BUCKET, Key=key)
    assert scones("aws", "bootstrap", "--dry-run", "--json").document["uploads"] == [key]
    assert scones("aws", "bootstrap", "--yes", "--json").document["uploaded"] == [key]
    s3.head_object(Bucket=BUCKET, Key=key)


def test_a_template_that_is_too_long_for_a_request_goes_by_way_of_the_bucket(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.packaging.MAX_BODY_BYTES", 1000)
    s3 = region.client("s3")
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "unchanged"
    (template,) = s3.list_objects_v2(Bucket=BUCKET, Prefix="code/templates/platform/")["Contents"]
    assert s3.get_object(Bucket=BUCKET, Key=template["Key"])["Body"].read() == PLATFORM_TEMPLATE.read_bytes()
    chosen = ("--set", "evaluation.confidence_threshold=0.8")
    assert scones("aws", "bootstrap", "--yes", "--json", *chosen).document["outcome"] == "updated"
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "updated"


def test_a_platform_whose_stack_was_deleted_by_hand_comes_back_with_all_that_it_held(region: Region, poll: Callable[..., Any]) -> None:
    client, s3, sagemaker = region.client("cloudformation"), region.client("s3"), region.client("sagemaker")
    s3.put_object(Bucket=BUCKET, Key="raw/photo", Body=b"irreplaceable")
    group = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"][0]["ModelPackageGroupArn"]
    client.delete_stack(StackName=PLATFORM)
    poll(lambda: PLATFORM not in stacks(region))
    assert scones("aws", "destroy", "--delete-data", "--json", "--dry-run").document["orphans"] == [
        f"AWS::S3::Bucket {BUCKET}",
        f"AWS::SageMaker::ModelPackageGroup {group}",
    ]
    assert f"Belongs to no stack, and is not touched: AWS::S3::Bucket {BUCKET}" in scones("aws", "destroy").stdout
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    plan = scones("aws", "bootstrap", "--dry-run", "--json").document
    assert (plan["steps"], {(change["action"], change["physical_id"]) for change in plan["changes"]}) == (
        3,
        {("Import", BUCKET), ("Import", group)},
    )
    assert stacks(region) == {}
    assert f"take over, {BUCKET}" in scones("aws", "bootstrap", "--dry-run").stdout
    answer = scones("aws", "bootstrap", "--yes")
    assert answer.error is None
    assert "is created" in answer.stdout
    assert stacks(region) == {PLATFORM: "UPDATE_COMPLETE"}
    assert s3.get_object(Bucket=BUCKET, Key="raw/photo")["Body"].read() == b"irreplaceable"
    # What was changed meanwhile is as the template says.
    assert s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    owned = client.describe_stack_resources(StackName=PLATFORM)["StackResources"]
    assert {BUCKET, group} <= {resource["PhysicalResourceId"] for resource in owned}
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "unchanged"
    # A second deletion leaves it all behind once more: importing made nothing less safe.
    client.delete_stack(StackName=PLATFORM)
    poll(lambda: PLATFORM not in stacks(region))
    s3.head_object(Bucket=BUCKET, Key="raw/photo")


def test_what_broke_off_after_the_import_goes_on_there(region: Region) -> None:
    session = boto3.Session()
    stack = watched_stack(session, PLATFORM, time.monotonic() + 60, lambda line: None)
    parameters = PlatformParameters()
    assert Adoption(session, stack, parameters.project, parameters.stage, parameters.for_template()).adopt(None)
    assert stacks(region) == {PLATFORM: "IMPORT_COMPLETE"}
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "created"
    assert stacks(region) == {PLATFORM: "UPDATE_COMPLETE"}
    assert region.client("s3").get_bucket_policy(Bucket=BUCKET)["Policy"]


def test_a_namesake_that_is_not_the_project_s_is_not_taken_over(region: Region) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket="other-dev-123456789012-us-east-1")
    error = scones("aws", "bootstrap", "--yes", "--set", "project.name=other").error
    assert isinstance(error, SconesError)
    assert "already exists, and is not ours (project=other stage=dev): it has no tag project" in error.message
    assert "project.name" in str(error.hint)
    assert stacks(region) == {PLATFORM: "UPDATE_COMPLETE"}
    s3.delete_bucket(Bucket="other-dev-123456789012-us-east-1")


def test_what_is_left_of_a_stack_that_could_not_be_deleted_goes_and_what_outlives_it_is_taken_over(
    region: Region, poll: Callable[..., Any]
) -> None:
    client, iam = region.client("cloudformation"), region.client("iam")
    (role,) = (
        item["PhysicalResourceId"]
        for item in client.describe_stack_resources(StackName=PLATFORM)["StackResources"]
        if item["LogicalResourceId"] == "ModelRole"
    )
    policy = {"RoleName": role, "PolicyArn": "arn:aws:iam::aws:policy/AWSLambda_ReadOnlyAccess"}
    iam.attach_role_policy(**policy)
    client.delete_stack(StackName=PLATFORM)
    poll(lambda: stacks(region).get(PLATFORM) == "DELETE_FAILED")
    plan = scones("aws", "bootstrap", "--dry-run", "--json").document
    assert (plan["steps"], plan["status"]) == (3, "DELETE_FAILED")
    assert {(change["action"], change["resource"]) for change in plan["changes"]} == {
        ("Import", "ArtifactBucket"),
        ("Import", "ModelPackageGroup"),
    }
    iam.detach_role_policy(**policy)
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "created"
    region.client("s3").head_object(Bucket=BUCKET, Key="raw/photo")


def test_what_was_packaged_is_deployed_as_it_is_and_with_the_role_that_is_named(region: Region, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    packaged = CliRunner().invoke(cli, ["aws", "package", str(folder), "--json"], standalone_mode=False)
    keys = {file["key"] for file in json.loads(packaged.stdout)["files"]}
    assert keys == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    again = CliRunner().invoke(cli, ["aws", "package", str(folder)], standalone_mode=False)
    assert isinstance(again.exception, SconesError)
    assert again.exception.exit_code == ExitCode.USAGE

    # A function whose bytes no source here would make.
    (old,) = (folder / "code/lambdas/smoke_test").iterdir()
    changed = old.read_bytes() + b"\0"
    old.unlink()
    key = f"code/lambdas/smoke_test/{hashlib.sha256(changed).hexdigest()}.zip"
    (folder / key).write_bytes(changed)
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    iam = region.client("iam")
    role = iam.create_role(RoleName="deploys", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", **trust}))["Role"]["Arn"]
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="deploys", PolicyName="everything", PolicyDocument=json.dumps(everything))
    answer = scones("aws", "bootstrap", "--yes", "--package", str(folder), "--role-arn", role, "--json").document
    assert (answer["outcome"], answer["uploaded"]) == ("updated", [key])
    (stack,) = region.client("cloudformation").describe_stacks(StackName=PLATFORM)["Stacks"]
    assert stack["RoleARN"] == role

    (folder / key).unlink()
    refused = scones("aws", "bootstrap", "--yes", "--package", str(folder))
    assert isinstance(refused.error, SconesError)
    assert "no file code/lambdas/smoke_test/*.zip" in refused.error.message


@pytest.mark.parametrize("name", ["aws.platform_stack=scones-platform", "staging_endpoint.name=scones-staging"])
@pytest.mark.parametrize("command", [("aws", "bootstrap"), ("aws", "destroy"), ("cicd", "deploy")], ids=" ".join)
def test_what_is_another_project_s_is_neither_made_nor_removed(command: tuple[str, ...], name: str) -> None:
    answer = scones(*command, "--set", "project.name=other", "--set", name)
    assert isinstance(answer.error, SconesError)
    assert answer.error.exit_code == ExitCode.USAGE
    assert "of the project other is other-" in answer.error.message
    assert f"Leave {name.partition('=')[0]} out" in str(answer.error.hint)


def test_two_projects_in_an_account_share_nothing(region: Region) -> None:
    scones("aws", "bootstrap", "--yes")
    other = ("--set", "project.name=other")
    assert scones("aws", "bootstrap", "--yes", "--json", *other).document["outcome"] == "created"
    assert "other-deploy" not in str(getattr(scones("logs", "nothing").error, "hint", ""))
    removed = scones("aws", "destroy", "--delete-data", "--confirm", "other", "--json", *other)
    assert removed.document["outcome"] == "removed", removed.error
    (stack,) = region.client("cloudformation").describe_stacks(StackName=PLATFORM)["Stacks"]
    assert stack["StackStatus"].endswith("_COMPLETE")
    assert region.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] != []
