"""Connections, and git pushes that start pipelines."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import Region

from helpers_codepipeline import REPOSITORY, Clone, Workshop, action, stage, unzipped

Poll = Callable[..., Any]
ASK = stage("Approve", action("Ask", "Approval/Manual", {"CustomData": "#{source.BranchName} #{source.CommitMessage}"}))


@pytest.fixture(scope="module")
def shop(region: Region) -> Workshop:
    return Workshop(region)


def source(arn: str, repository: str = REPOSITORY, **configuration: str) -> dict[str, Any]:
    settings = {"ConnectionArn": arn, "FullRepositoryId": repository, "BranchName": "main", **configuration}
    return stage("Source", action("Checkout", "Source/CodeStarSourceConnection", settings, outputs=["Source"], namespace="source"))


def test_connections_are_pending_until_a_person_authorizes_them(shop: Workshop) -> None:
    new, old = shop.client("codeconnections"), shop.client("codestar-connections")
    arn = new.create_connection(ConnectionName="github", ProviderType="GitHub", Tags=[{"Key": "team", "Value": "ml"}])["ConnectionArn"]
    assert arn.startswith("arn:aws:codeconnections:us-east-1:123456789012:connection/")
    assert new.get_connection(ConnectionArn=arn)["Connection"]["ConnectionStatus"] == "PENDING"
    assert Path(shop.authorize(arn, "team/first"), "HEAD").exists()
    assert (
        old.get_connection(ConnectionArn=arn.replace("codeconnections", "codestar-connections"))["Connection"]["ConnectionStatus"]
        == "AVAILABLE"
    )
    assert arn in [one["ConnectionArn"] for one in old.list_connections(ProviderTypeFilter="GitHub")["Connections"]]
    new.tag_resource(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "dev"}])
    new.untag_resource(ResourceArn=arn, TagKeys=["team"])
    assert new.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "stage", "Value": "dev"}]
    new.delete_connection(ConnectionArn=arn)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        new.get_connection(ConnectionArn=arn)


def test_where_aws_has_no_connections_none_is_made(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region.cloud, "settings", replace(region.cloud.settings, region="eu-south-2"))
    client = boto3.client("codeconnections", endpoint_url=region.endpoint_url, region_name="eu-south-2")
    with pytest.raises(ClientError, match=r"CodeConnections in eu-south-2, .* not supported by localcloud"):
        client.create_connection(ConnectionName="github", ProviderType="GitHub")


@pytest.mark.parametrize("repository", ["../escape", "/etc", "app", "team/.git", "team/app.git", "team/../app", ""])
def test_only_names_of_repositories_are_authorized(shop: Workshop, repository: str) -> None:
    arn = shop.client("codeconnections").create_connection(ConnectionName="c", ProviderType="GitHub")["ConnectionArn"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        shop.authorize(arn, repository)
    assert refused.value.code == 400
    assert "is not a repository's name" in json.load(refused.value)["message"]


def test_a_push_runs_the_pipeline_with_the_pushed_commit(shop: Workshop, tmp_path: Path, poll: Poll) -> None:
    arn = shop.client("codeconnections").create_connection(ConnectionName="github", ProviderType="GitHub")["ConnectionArn"]
    name, first = shop.create(source(arn), ASK)
    poll(lambda: shop.status(name, first) == "Failed")
    assert "Unable to use Connection" in shop.error(name, first, "Checkout")
    remote = shop.authorize(arn, REPOSITORY)
    shop.client("codepipeline").retry_stage_execution(
        pipelineName=name, stageName="Source", pipelineExecutionId=first, retryMode="FAILED_ACTIONS"
    )
    poll(lambda: shop.status(name, first) == "Failed")
    assert shop.error(name, first, "Checkout") == "[GitHub] No Branch [main] found for FullRepositoryName [team/app]"
    clone = Clone(tmp_path / "clone", remote)
    commit = clone.commit("First words\n\nAnd more.", a__txt="1", docs___b__md="2")
    clone.push()
    poll(lambda: len(shop.executions(name)) == 2)
    execution = shop.executions(name)[0]["pipelineExecutionId"]
    poll(lambda: "Ask" in shop.actions(name, execution))
    checkout = shop.actions(name, execution)["Checkout"]
    variables = checkout["output"]["outputVariables"]
    assert (variables["CommitId"], variables["FullRepositoryName"], variables["BranchName"]) == (commit, REPOSITORY, "main")
    place = checkout["output"]["outputArtifacts"][0]["s3location"]
    body = shop.client("s3").get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read()
    assert unzipped(body) == {"a.txt": "1", "docs/b.md": "2"}
    revision = shop.executions(name)[0]["sourceRevisions"][0]
    assert json.loads(revision["revisionSummary"]) == {"ProviderType": "GitHub", "CommitMessage": "First words\n\nAnd more."}
    assert shop.executions(name)[0]["trigger"] == {"triggerType": "WebhookV2", "triggerDetail": arn}
    poll(lambda: shop.actions(name, execution)["Ask"]["input"]["resolvedConfiguration"] == {"CustomData": "main First words\n\nAnd more."})


def test_only_pushes_that_pass_the_filters_start_a_pipeline(shop: Workshop, tmp_path: Path, poll: Poll) -> None:
    arn, remote = shop.connection("team/filtered")
    clone = Clone(tmp_path / "clone", remote)
    clone.commit("Begin", code__py="1")
    clone.push()
    push = [{"branches": {"includes": ["main", "release/*"]}, "filePaths": {"excludes": ["docs/**", "*.md"]}}]
    trigger = {"providerType": "CodeStarSourceConnection", "gitConfiguration": {"sourceActionName": "Checkout", "push": push}}
    name, first = shop.create(source(arn, "team/filtered", DetectChanges="false"), ASK, triggers=[trigger])
    poll(lambda: "Ask" in shop.actions(name, first))
    clone.commit("Documents only", docs___deep___a__md="1", README__md="1")
    clone.push()
    clone.git("checkout", "--quiet", "-b", "feature")
    clone.commit("A branch that nobody watches", code__py="2")
    clone.push()
    clone.git("checkout", "--quiet", "-b", "release/1")
    commit = clone.commit("Code", code__py="3")
    clone.push("release/1")
    # Pushes are told in order: had one before started the pipeline, it would be there as well.
    poll(lambda: len(shop.executions(name)) > 1)
    assert len(shop.executions(name)) == 2
    execution = shop.executions(name)[0]["pipelineExecutionId"]
    poll(lambda: shop.executions(name)[0]["sourceRevisions"])
    assert shop.executions(name)[0]["sourceRevisions"][0]["revisionId"] == commit
    assert shop.actions(name, execution)["Checkout"]["output"]["outputVariables"]["BranchName"] == "release/1"


def test_an_execution_can_be_started_for_a_commit(shop: Workshop, tmp_path: Path, poll: Poll) -> None:
    arn, remote = shop.connection("team/older")
    clone = Clone(tmp_path / "clone", remote)
    old = clone.commit("Old", a__txt="1")
    clone.commit("New", a__txt="2")
    clone.push()
    name, _ = shop.create(source(arn, "team/older", DetectChanges="false"), ASK)
    revision = {"actionName": "Checkout", "revisionType": "COMMIT_ID", "revisionValue": old}
    execution = shop.start(name, sourceRevisions=[revision])
    poll(lambda: "Checkout" in shop.actions(name, execution) and shop.actions(name, execution)["Checkout"]["status"] == "Succeeded")
    assert shop.actions(name, execution)["Checkout"]["output"]["outputVariables"]["CommitId"] == old
    missing = shop.start(name, sourceRevisions=[{**revision, "revisionValue": "0" * 39 + "1"}])
    poll(lambda: shop.status(name, missing) == "Failed")
    assert "No Commit" in shop.error(name, missing, "Checkout")


def test_a_hooks_path_of_the_pusher_hides_no_push(shop: Workshop, tmp_path: Path, poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    arn, remote = shop.connection("team/hooks")
    name, _ = shop.create(source(arn, "team/hooks"), ASK)
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f"[core]\nhooksPath = {tmp_path}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    clone = Clone(tmp_path / "clone", remote)
    clone.commit("Begin", a__txt="1")
    clone.push()
    poll(lambda: len(shop.executions(name)) == 2)


def test_what_was_pushed_can_be_cloned(shop: Workshop, tmp_path: Path) -> None:
    _, remote = shop.connection("team/cloned")
    clone = Clone(tmp_path / "clone", remote)
    commit = clone.commit("Begin", a__txt="1")
    clone.push()
    subprocess.run(["git", "clone", "--quiet", remote, str(tmp_path / "second")], check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path / "second", check=True, capture_output=True, text=True)
    assert head.stdout.strip() == commit
