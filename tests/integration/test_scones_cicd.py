"""`scones cicd` against a region: what it deploys, uploads and shows, with a project whose builds are quick.

The tests share a region and run in the order of this file.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import Region

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from helpers_roles import mighty_role
from infrastructure.deploy import PlatformParameters, deploy_platform
from scones.errors import ExitCode, SconesError
from scones.sessions import Session

STACK, BUCKET = "scones-cicd", "scones-cicd-123456789012-us-east-1"
S3 = ("--set", "cicd.source=s3", "--set", "cicd.test_command=cat tested")
BUILDSPEC = "version: 0.2\nphases:\n  build:\n    commands:\n      - {command}\n"
PACKAGED = "artifacts:\n  files: [tested]\n"


@pytest.fixture(scope="module", autouse=True)
def platform(region: Region) -> None:
    deploy_platform(region, PlatformParameters())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository in the place of this one: the same stages, with builds that take no time."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "codebuild").mkdir()
    for name, command in {"test": 'eval "$TEST_COMMAND"', "package": "true", "platform": "true", "pipeline": "true"}.items():
        text = BUILDSPEC.format(command=command) + (PACKAGED if name == "package" else "")
        (folder / "codebuild" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "tested").write_text("all is well\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    patch = pytest.MonkeyPatch()
    patch.setattr("scones.project.ROOT", folder)
    yield folder
    patch.undo()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def stacks(region: Region) -> set[str]:
    return {stack["StackName"] for stack in region.client("cloudformation").describe_stacks()["Stacks"]}


def refused(*arguments: str) -> SconesError:
    error = scones(*arguments).error
    assert isinstance(error, SconesError)
    return error


def ended(poll: Callable[..., Any], commit: str) -> dict[str, Any]:
    """Wait for the end of a commit's delivery, and return its status."""

    def found() -> dict[str, Any] | None:
        status: dict[str, Any] = scones("cicd", "status", "--json").document
        delivery = status["delivery"]
        return status if delivery is not None and delivery["commit"] == commit and delivery["status"] != "InProgress" else None

    return dict(poll(found, 120, 0.2))


def nothing_is_left(region: Region) -> None:
    """Hold that a first deployment was taken back whole."""
    (stack,) = region.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    left = region.client("cloudformation").describe_stack_resources(StackName=STACK)["StackResources"]
    assert {resource["ResourceStatus"] for resource in left} <= {"DELETE_COMPLETE"}
    assert region.client("codepipeline").list_pipelines()["pipelines"] == []
    assert region.client("codebuild").list_projects()["projects"] == []
    assert not any(STACK in role["RoleName"] for role in region.client("iam").list_roles()["Roles"])


# --- before there is one --------------------------------------------------------------------------------------------------------------------


def test_without_a_delivery_each_command_says_how_to_make_one(region: Region) -> None:
    for command in ("status", "logs", "push"):
        error = refused("cicd", command)
        assert error.exit_code == ExitCode.USAGE
        assert "has no stack scones-cicd" in error.message
        assert error.hint == "Make it: scones cicd deploy --aws"


def test_a_repository_must_be_named_and_the_way_without_one_is_shown(region: Region) -> None:
    error = refused("cicd", "deploy", "--yes")
    assert error.exit_code == ExitCode.USAGE
    assert "cicd.repository is not set" in error.message
    assert "--set cicd.source=s3" in str(error.hint)


def test_a_dry_run_shows_roles_builds_and_costs_and_leaves_nothing(region: Region) -> None:
    plan = scones("cicd", "deploy", *S3, "--dry-run", "--json").document
    assert plan["outcome"] == "planned"
    types = {change["type"] for change in plan["changes"]}
    assert types >= {"AWS::CodePipeline::Pipeline", "AWS::CodeBuild::Project", "AWS::IAM::Role"}
    assert {line["what"] for line in plan["costs"]["lines"]} >= {"CodePipeline", "CodeBuild"}
    assert STACK not in stacks(region)
    # The plan that was dropped was a stack for a moment, which nobody has deleted.
    (delivery,) = (item for item in scones("aws", "diff", "--json").document if item["stack"] == STACK)
    assert (delivery["status"], delivery["reason"]) == (None, None)


def test_a_delivery_that_cannot_be_made_leaves_nothing_and_the_next_try_makes_it(region: Region) -> None:
    region.client("s3").create_bucket(Bucket=BUCKET)
    error = refused("cicd", "deploy", *S3, "--yes")
    assert error.exit_code == ExitCode.FAILED
    assert "already exists" in error.message
    assert "look before you delete anything" in f"{error.message} {error.hint}"
    nothing_is_left(region)
    region.client("s3").delete_bucket(Bucket=BUCKET)


@pytest.fixture
def denied(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign the commands in as somebody who may do everything but make a connection, as where an organization does not want CodeConnections."""
    iam, anybody = region.client("iam"), {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
    person = mighty_role(iam, "person", {"Version": "2012-10-17", "Statement": [anybody]})
    deny = {"Effect": "Deny", "Action": "codeconnections:CreateConnection", "Resource": "*"}
    iam.put_role_policy(RoleName="person", PolicyName="deny", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    given = region.client("sts").assume_role(RoleArn=person, RoleSessionName="me")["Credentials"]
    for name, member in {"ACCESS_KEY_ID": "AccessKeyId", "SECRET_ACCESS_KEY": "SecretAccessKey", "SESSION_TOKEN": "SessionToken"}.items():
        monkeypatch.setenv(f"AWS_{name}", given[member])
    made: dict[tuple[Any, ...], Any] = {}

    def signed_in(session: Session) -> None:
        boto3.Session.__init__(session)
        session._made = made

    monkeypatch.setattr(Session, "__init__", signed_in)


@pytest.mark.usefixtures("denied")
def test_who_may_make_no_connection_is_told_to_upload_which_then_works(region: Region) -> None:
    error = refused("cicd", "deploy", "--set", "cicd.repository=owner/name", "--yes")
    assert error.exit_code == ExitCode.FAILED
    assert "assumed-role/person/me is not authorized to perform: codeconnections:CreateConnection" in error.message
    assert "--set cicd.source=s3" in str(error.hint)
    nothing_is_left(region)
    assert scones("cicd", "deploy", *S3, "--yes", "--json").document["outcome"] == "created"
    assert [item["name"] for item in region.client("codepipeline").list_pipelines()["pipelines"]] == [STACK]
    region.client("cloudformation").delete_stack(StackName=STACK)
    region.client("cloudformation").get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 0.1})


def test_with_github_actions_there_is_a_role_for_one_branch_and_nothing_that_runs(region: Region) -> None:
    provider = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    chosen = ("cicd.source=github-actions", "cicd.repository=owner/name")
    answer = scones("cicd", "deploy", *(word for one in chosen for word in ("--set", one)), "--yes", "--json").document
    assert answer["outcome"] == "created"
    (role,) = (role for role in region.client("iam").list_roles()["Roles"] if "GitHubActionsRole" in role["RoleName"])
    assert role["Arn"] in answer["next"][0]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Federated": provider}
    assert statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == "repo:owner/name:ref:refs/heads/main"
    made = region.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=provider)
    assert (made["Url"], made["ClientIDList"]) == ("token.actions.githubusercontent.com", ["sts.amazonaws.com"])
    assert region.client("codepipeline").list_pipelines()["pipelines"] == []
    assert "GitHub Actions delivers" in refused("cicd", "status").message


# --- with uploads ---------------------------------------------------------------------------------------------------------------------------


def test_it_is_changed_to_uploads_says_what_is_next_and_is_left_alone_the_second_time(region: Region, poll: Callable[..., Any]) -> None:
    answer = scones("cicd", "deploy", *S3, "--yes")
    assert answer.error is None
    assert "The stack scones-cicd is updated." in answer.stdout
    assert "scones cicd push --aws" in answer.stdout
    assert "AWS::CodePipeline::Pipeline" in answer.stderr
    again = scones("cicd", "deploy", *S3, "--yes", "--json").document
    assert (again["outcome"], again["changes"]) == ("unchanged", [])
    # A new pipeline runs at once; there are no sources yet.
    poll(lambda: scones("cicd", "status", "--json").document["delivery"]["status"] == "Failed", 60)
    assert scones("cicd", "status", "--json").document["nothing_pushed_yet"]
    text = scones("cicd", "status").stdout
    assert "this one found no commit" in text
    assert "Upload a commit: scones cicd push" in text
    assert "failed" not in text
    assert "No build has run yet" in refused("cicd", "logs").message


def test_the_stack_is_compared_with_the_sources_and_the_settings(region: Region) -> None:
    def difference(*options: str) -> dict[str, Any]:
        return next(item for item in scones("aws", "diff", "--json", *options).document if item["stack"] == STACK)

    same = difference(*S3)
    assert (same["changes"], same["reason"]) == ([], None)
    changed = difference(*S3, "--set", "cicd.test_command=true")["changes"]
    assert "TestProject" in {change["resource"] for change in changed}
    unknown = difference()
    assert unknown["changes"] is None
    assert "cicd.repository is not set" in unknown["reason"]


def test_what_is_not_committed_cannot_be_delivered(region: Region, project: Path) -> None:
    error = refused("cicd", "push")
    assert error.exit_code == ExitCode.USAGE
    assert "Only what is committed can be delivered." in str(error.hint)


def test_a_commit_is_uploaded_and_delivered_and_known_by_its_hash(region: Region, project: Path, poll: Callable[..., Any]) -> None:
    identifier = commit(project, "Zum ersten Mal: größer")
    (project / "tested").write_text("not committed\n", encoding="utf-8")
    planned = scones("cicd", "push", "--dry-run")
    assert "Warning: files that are not committed are left out" in planned.stderr
    assert region.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="_source/")["KeyCount"] == 0
    uploaded = scones("cicd", "push", "--json").document
    assert (uploaded["commit"], uploaded["outcome"]) == (identifier, "uploaded")
    body = region.client("s3").get_object(Bucket=BUCKET, Key="_source/source.zip")["Body"].read()
    assert zipfile.ZipFile(BytesIO(body)).read("tested") == b"all is well\n"
    status = ended(poll, identifier)
    assert status["delivery"]["status"] == "Succeeded", status
    assert not status["nothing_pushed_yet"]
    assert [action["name"] for action in status["delivery"]["actions"]] == ["Source", "Test", "Package", "Platform", "Pipeline"]
    assert "all is well" in scones("cicd", "logs", "Test").stdout
    found = scones("cicd", "status", status["delivery"]["execution_id"][:8], "--json").document
    assert found["delivery"] == status["delivery"]
    git(project, "checkout", "--quiet", "--", "tested")


def test_a_failing_test_is_explained_with_the_end_of_its_log(region: Region, project: Path, poll: Callable[..., Any]) -> None:
    (project / "tested").unlink()
    identifier = commit(project, "Nothing to test")
    scones("cicd", "push")
    status = ended(poll, identifier)
    assert status["delivery"]["status"] == "Failed"
    assert any("tested" in line and "No such file" in line for line in status["log_tail"])
    text = scones("cicd", "status").stdout
    for words in ("Test failed:", "No such file", "all of it: scones cicd logs --aws Test", "Mend it and push again."):
        assert words in text
    assert "No such file" in scones("cicd", "logs").stdout


def test_what_does_not_exist_is_answered_with_what_does(region: Region) -> None:
    error = refused("cicd", "status", "no-such-execution")
    assert "No executions of scones-cicd are called 'no-such-execution'" in error.message
    assert str(error.hint).startswith("There are: ")
    error = refused("cicd", "logs", "Deploy")
    assert str(error.hint) == "Builds ran of: Test"


# --- with a repository ----------------------------------------------------------------------------------------------------------------------


def test_a_new_connection_has_to_be_authorized_by_a_person_and_the_place_is_named(region: Region) -> None:
    answer = scones("cicd", "deploy", "--set", "cicd.repository=owner/name", "--yes", "--json").document
    assert answer["outcome"] == "updated"
    first, second = answer["next"]
    assert "https://us-east-1.console.aws.amazon.com/codesuite/settings/connections" in first
    assert "git push to the branch main of owner/name" in second
    error = refused("cicd", "push")
    assert "takes its commits from a repository" in error.message
    (connection,) = region.client("codeconnections").list_connections()["Connections"]
    region.cloud.services["codeconnections"].authorize(connection["ConnectionArn"], "owner/name")
    again = scones("cicd", "deploy", "--set", "cicd.repository=owner/name", "--yes", "--json").document
    assert (again["outcome"], len(again["next"])) == ("unchanged", 1)


def test_a_stack_that_was_deleted_by_hand_as_far_as_that_goes_is_made_anew(region: Region, poll: Callable[..., Any]) -> None:
    cloudformation, s3 = region.client("cloudformation"), region.client("s3")
    s3.put_object(Bucket=BUCKET, Key="_source/source.zip", Body=b"x")
    cloudformation.delete_stack(StackName=STACK)
    poll(lambda: cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"] == "DELETE_FAILED")
    answer = scones("cicd", "deploy", *S3, "--yes")
    assert answer.error is None
    assert "is in DELETE_FAILED: nothing in it serves. It is deleted with what is in its bucket, then made anew." in answer.stderr
    assert cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    assert s3.list_object_versions(Bucket=BUCKET).get("Versions", []) == []


def test_destroy_takes_the_delivery_with_its_bucket(region: Region) -> None:
    assert scones("aws", "destroy", "--confirm", "scones").error is None
    assert STACK not in stacks(region)
    assert BUCKET not in {bucket["Name"] for bucket in region.client("s3").list_buckets()["Buckets"]}
