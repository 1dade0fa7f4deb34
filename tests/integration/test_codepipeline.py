"""CodePipeline through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region

from helpers_codepipeline import Builds, Workshop, action, stage, unzipped, zipped

Poll = Callable[..., Any]

BUILD = stage(
    "Build", action("Compile", "Build/CodeBuild", {"ProjectName": "compile"}, inputs=["Source"], outputs=["Built"], namespace="build")
)
APPROVE = stage("Approve", action("Ask", "Approval/Manual", {"CustomData": "Commit #{source.VersionId}"}))
APPROVE_PLAINLY = stage("Approve", action("Ask", "Approval/Manual"))


@pytest.fixture(scope="module")
def shop(region: Region) -> Workshop:
    return Workshop(region)


@pytest.fixture
def builds(shop: Workshop) -> Builds:
    return shop.fake_builds()


def approve(shop: Workshop, name: str, status: str, summary: str = "fine") -> dict[str, Any]:
    token = shop.stage_state(name, "Approve")["actionStates"][0]["latestExecution"]["token"]
    result = {"summary": summary, "status": status}
    answer: dict[str, Any] = shop.client("codepipeline").put_approval_result(
        pipelineName=name, stageName="Approve", actionName="Ask", result=result, token=token
    )
    return answer


def asked(shop: Workshop, name: str) -> bool:
    return "token" in shop.stage_state(name, "Approve")["actionStates"][0].get("latestExecution", {})


def test_an_execution_goes_from_source_over_build_and_approval_to_its_end(shop: Workshop, builds: Builds, poll: Poll) -> None:
    name, execution = shop.create(shop.source(a__txt="hello"), BUILD, APPROVE)
    build = poll(builds.running)[0]
    request = builds.requests[0]
    source = shop.client("s3").get_object(Bucket=request["source"].bucket, Key=request["source"].key)["Body"].read()
    assert unzipped(source) == {"a.txt": "hello"}
    assert request["initiator"] == f"codepipeline/{name}"
    version = shop.actions(name, execution)["Take"]["output"]["outputVariables"]["VersionId"]
    assert request["source_version"] == version
    assert request["artifacts"]["Built"].key.startswith(f"{name[:20]}/Built/")
    assert shop.stage_state(name, "Build")["latestExecution"] == {
        "pipelineExecutionId": execution,
        "status": "InProgress",
        "type": "STANDARD",
    }
    builds.end(build, exportedEnvironmentVariables=[{"name": "DIGEST", "value": "abc"}])
    poll(lambda: asked(shop, name))
    assert shop.actions(name, execution)["Compile"]["output"]["outputVariables"] == {"DIGEST": "abc"}
    assert shop.actions(name, execution)["Ask"]["input"]["resolvedConfiguration"] == {"CustomData": f"Commit {version}"}
    assert "approvedAt" in approve(shop, name, "Approved")
    poll(lambda: shop.status(name, execution) == "Succeeded")
    found = shop.client("codepipeline").get_pipeline_execution(pipelineName=name, pipelineExecutionId=execution)["pipelineExecution"]
    assert [(one["name"], one["revisionId"]) for one in found["artifactRevisions"]] == [("Source", version)]
    assert found["trigger"]["triggerType"] == "CreatePipeline"


def test_a_failed_build_ends_the_execution_there_and_a_retry_goes_on(shop: Workshop, builds: Builds, poll: Poll) -> None:
    name, execution = shop.create(shop.source(), BUILD, APPROVE)
    context = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": "Error while executing command: make test. Reason: exit status 2"}
    builds.end(poll(builds.running)[0], "FAILED", phases=[{"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [context]}])
    poll(lambda: shop.status(name, execution) == "Failed")
    assert shop.error(name, execution, "Compile") == (
        "Build terminated with state: FAILED. Phase: BUILD, Code: COMMAND_EXECUTION_ERROR, "
        "Message: Error while executing command: make test. Reason: exit status 2"
    )
    assert "Ask" not in shop.actions(name, execution)
    retry = {"pipelineName": name, "pipelineExecutionId": execution, "retryMode": "FAILED_ACTIONS"}
    with pytest.raises(ClientError, match="StageNotRetryableException"):
        shop.client("codepipeline").retry_stage_execution(stageName="Source", **retry)
    shop.client("codepipeline").retry_stage_execution(stageName="Build", **retry)
    builds.end(poll(builds.running)[0])
    poll(lambda: asked(shop, name))
    assert shop.status(name, execution) == "InProgress"
    assert shop.stage_state(name, "Build")["retryStageMetadata"]["manualStageRetryAttempt"] == 1
    approve(shop, name, "Rejected", "not today")
    poll(lambda: shop.status(name, execution) == "Failed")
    assert shop.error(name, execution, "Ask") == "not today"
    later = shop.start(name)
    poll(builds.running)
    with pytest.raises(ClientError, match="NotLatestPipelineExecutionException"):
        shop.client("codepipeline").retry_stage_execution(stageName="Build", **retry)
    shop.client("codepipeline").stop_pipeline_execution(pipelineName=name, pipelineExecutionId=later, abandon=False)
    builds.end(builds.running()[0])
    poll(lambda: shop.status(name, later) == "Stopped")


def test_newer_executions_supersede_waiting_ones(shop: Workshop, builds: Builds, poll: Poll) -> None:
    name, first = shop.create(shop.source(), BUILD, APPROVE_PLAINLY)
    poll(builds.running)
    second = shop.start(name)
    poll(lambda: "inboundExecution" in shop.stage_state(name, "Build"))
    third = shop.start(name)
    poll(lambda: shop.status(name, second) == "Superseded")
    assert [one["pipelineExecutionId"] for one in shop.stage_state(name, "Build")["inboundExecutions"]] == [third]
    builds.end(builds.running()[0])
    poll(lambda: len(builds.requests) == 2)
    assert (shop.status(name, first), shop.status(name, third)) == ("InProgress", "InProgress")


def test_queued_executions_take_turns(shop: Workshop, builds: Builds, poll: Poll) -> None:
    name, first = shop.create(shop.source(), BUILD, executionMode="QUEUED")
    poll(builds.running)
    second = shop.start(name)
    poll(lambda: "inboundExecution" in shop.stage_state(name, "Build"))
    third = shop.start(name)
    poll(lambda: len(shop.stage_state(name, "Build").get("inboundExecutions", [])) == 2)
    for execution in (first, second, third):
        assert shop.stage_state(name, "Build")["latestExecution"]["pipelineExecutionId"] == execution
        builds.end(poll(builds.running)[0])
        poll(lambda one=execution: shop.status(name, one) == "Succeeded")
        if execution != third:
            poll(builds.running)


def test_a_disabled_transition_holds_executions_back(shop: Workshop, builds: Builds, poll: Poll) -> None:
    client = shop.client("codepipeline")
    name, execution = shop.create(shop.source(), BUILD, APPROVE)
    poll(builds.running)
    transition = {"pipelineName": name, "stageName": "Approve", "transitionType": "Inbound"}
    client.disable_stage_transition(**transition, reason="Freeze")
    builds.end(builds.running()[0])
    poll(lambda: "inboundExecution" in shop.stage_state(name, "Approve"))
    assert shop.stage_state(name, "Approve")["inboundTransitionState"]["disabledReason"] == "Freeze"
    client.enable_stage_transition(**transition)
    poll(lambda: asked(shop, name))
    assert shop.status(name, execution) == "InProgress"


def test_an_abandoned_build_is_stopped(shop: Workshop, builds: Builds, poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    name, execution = shop.create(shop.source(), BUILD)
    build = poll(builds.running)[0]
    monkeypatch.setattr(builds, "stop_build", lambda params: stopped.append(params["id"]), raising=False)
    shop.client("codepipeline").stop_pipeline_execution(
        pipelineName=name, pipelineExecutionId=execution, abandon=True, reason="wrong branch"
    )
    poll(lambda: shop.status(name, execution) == "Stopped")
    assert shop.actions(name, execution)["Compile"]["status"] == "Abandoned"
    assert stopped == [build]
    assert shop.executions(name)[0]["stopTrigger"] == {"reason": "wrong branch"}


def test_a_rule_starts_a_pipeline_when_an_object_is_created(shop: Workshop, poll: Poll) -> None:
    bucket = shop.bucket()
    shop.client("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    take = action("Take", "Source/S3", {"S3Bucket": bucket, "S3ObjectKey": "a.zip", "PollForSourceChanges": "false"}, outputs=["Source"])
    name, first = shop.create(stage("Source", take), APPROVE_PLAINLY)
    poll(lambda: shop.status(name, first) == "Failed")
    assert "does not exist" in shop.error(name, first, "Take")
    events = shop.client("events")
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [bucket]}}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    arn = shop.client("codepipeline").get_pipeline(name=name)["metadata"]["pipelineArn"]
    revision = {"actionName": "Take", "revisionType": "S3_OBJECT_VERSION_ID", "revisionValue": "<version>"}
    transformer = {"InputPathsMap": {"version": "$.detail.object.version-id"}, "InputTemplate": json.dumps({"sourceRevisions": [revision]})}
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn, "RoleArn": shop.role, "InputTransformer": transformer}])
    version = shop.client("s3").put_object(Bucket=bucket, Key="a.zip", Body=zipped(a__txt="1"))["VersionId"]
    poll(lambda: len(shop.executions(name)) == 2)
    poll(lambda: asked(shop, name))
    started = shop.executions(name)[0]
    assert started["trigger"] == {"triggerType": "CloudWatchEvent", "triggerDetail": f"arn:aws:events:us-east-1:123456789012:rule/{name}"}
    assert started["sourceRevisions"][0]["revisionId"] == version


def test_a_polled_object_starts_a_pipeline(shop: Workshop, poll: Poll) -> None:
    bucket = shop.bucket()
    take = action("Take", "Source/S3", {"S3Bucket": bucket, "S3ObjectKey": "a.zip"}, outputs=["Source"])
    name, _ = shop.create(stage("Source", take), APPROVE_PLAINLY)
    shop.client("s3").put_object(Bucket=bucket, Key="a.zip", Body=zipped(a__txt="1"))
    poll(lambda: shop.executions(name)[0]["trigger"] == {"triggerType": "PollForSourceChanges", "triggerDetail": "Take"})
