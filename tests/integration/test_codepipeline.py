"""CodePipeline through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region

from helpers_codepipeline import Builds, Workshop, action, stage, unzipped, zipped
from helpers_roles import mighty_role
from localcloud.codepipeline import engine, store

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
    assert shop.actions(name, execution)["Ask"]["output"]["executionResult"] == {
        "externalExecutionSummary": "not today",
        "errorDetails": {"code": "JobFailed", "message": "not today"},
    }
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
    name, first = shop.create(stage("Source", take), APPROVE_PLAINLY, variables=[{"name": "v", "defaultValue": "none"}])
    poll(lambda: shop.status(name, first) == "Failed")
    assert "does not exist" in shop.error(name, first, "Take")
    events = shop.client("events")
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [bucket]}}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    arn = shop.client("codepipeline").get_pipeline(name=name)["metadata"]["pipelineArn"]
    revision = {"actionName": "Take", "revisionType": "S3_OBJECT_VERSION_ID", "revisionValue": "<version>"}
    transformer = {
        "InputPathsMap": {"version": "$.detail.object.version-id"},
        "InputTemplate": json.dumps({"sourceRevisions": [revision], "variables": [{"name": "v", "value": "<version>"}]}),
    }
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn, "RoleArn": shop.role, "InputTransformer": transformer}])
    version = shop.client("s3").put_object(Bucket=bucket, Key="a.zip", Body=zipped(a__txt="1"))["VersionId"]
    poll(lambda: len(shop.executions(name)) == 2)
    poll(lambda: asked(shop, name))
    started = shop.executions(name)[0]
    assert started["trigger"] == {"triggerType": "CloudWatchEvent", "triggerDetail": f"arn:aws:events:us-east-1:123456789012:rule/{name}"}
    assert started["sourceRevisions"][0]["revisionId"] == version
    found = shop.client("codepipeline").get_pipeline_execution(pipelineName=name, pipelineExecutionId=started["pipelineExecutionId"])
    assert found["pipelineExecution"]["variables"] == [{"name": "v", "resolvedValue": version}]


def test_a_polled_object_starts_a_pipeline(shop: Workshop, poll: Poll) -> None:
    bucket = shop.bucket()
    take = action("Take", "Source/S3", {"S3Bucket": bucket, "S3ObjectKey": "a.zip"}, outputs=["Source"])
    name, _ = shop.create(stage("Source", take), APPROVE_PLAINLY)
    shop.client("s3").put_object(Bucket=bucket, Key="a.zip", Body=zipped(a__txt="1"))
    poll(lambda: shop.executions(name)[0]["trigger"] == {"triggerType": "PollForSourceChanges", "triggerDetail": "Take"})


def test_an_execution_that_waits_can_be_stopped(shop: Workshop, builds: Builds, poll: Poll) -> None:
    name, first = shop.create(shop.source(), BUILD, executionMode="QUEUED")
    poll(builds.running)
    second = shop.start(name)
    poll(lambda: "inboundExecution" in shop.stage_state(name, "Build"))
    stop = {"pipelineName": name, "pipelineExecutionId": second}
    shop.client("codepipeline").stop_pipeline_execution(**stop)
    poll(lambda: shop.status(name, second) == "Stopped")
    with pytest.raises(ClientError, match="PipelineExecutionNotStoppableException"):
        shop.client("codepipeline").stop_pipeline_execution(**stop)
    assert shop.status(name, first) == "InProgress"
    assert len(builds.requests) == 1


def test_actions_of_one_order_run_at_once_and_the_others_after_them(shop: Workshop, builds: Builds, poll: Poll) -> None:
    def build(name: str, order: int) -> dict[str, Any]:
        return action(name, "Test/CodeBuild", {"ProjectName": name}, inputs=["Source"], runOrder=order)

    name, execution = shop.create(shop.source(), stage("Test", build("a", 2), build("b", 2), build("c", 3)))
    poll(lambda: len(builds.running()) == 2)
    builds.end(builds.running()[0], "FAILED")
    builds.end(builds.running()[0])
    poll(lambda: shop.status(name, execution) == "Failed")
    assert sorted(request["project"] for request in builds.requests) == ["a", "b"]
    retry = {"pipelineName": name, "pipelineExecutionId": execution, "stageName": "Test"}
    shop.client("codepipeline").retry_stage_execution(**retry, retryMode="FAILED_ACTIONS")
    poll(lambda: len(builds.requests) == 3)
    failed = builds.requests[2]["project"]
    assert [one["project"] for one in builds.requests].count(failed) == 2, "what succeeded is not run again"
    builds.end(builds.running()[0], "FAILED")
    poll(lambda: shop.status(name, execution) == "Failed")
    shop.client("codepipeline").retry_stage_execution(**retry, retryMode="ALL_ACTIONS")
    poll(lambda: len(builds.requests) == 5)
    for identifier in builds.running():
        builds.end(identifier)
    builds.end(poll(lambda: len(builds.requests) == 6 and builds.running())[0])
    poll(lambda: shop.status(name, execution) == "Succeeded")


def test_an_approval_that_nobody_answers_times_out(shop: Workshop, poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    name, execution = shop.create(shop.source(), APPROVE_PLAINLY)
    poll(lambda: asked(shop, name))
    monkeypatch.setattr(engine, "now", lambda: store.now() + timedelta(days=7, minutes=1))
    poll(lambda: shop.status(name, execution) == "Failed")
    assert shop.actions(name, execution)["Ask"]["output"]["executionResult"]["errorDetails"]["code"] == "ActionTimedOut"


def test_an_approval_is_asked_for_by_notification_and_answered_once(shop: Workshop, poll: Poll) -> None:
    topic = shop.client("sns").create_topic(Name="approvals")["TopicArn"]
    url = shop.client("sqs").create_queue(QueueName="approvals")["QueueUrl"]
    arn = shop.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    shop.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    name, execution = shop.create(shop.source(), stage("Approve", action("Ask", "Approval/Manual", {"NotificationArn": topic})))
    message = poll(lambda: shop.client("sqs").receive_message(QueueUrl=url).get("Messages"))[0]
    approval = json.loads(message["Body"])["approval"]
    answer = {"pipelineName": name, "stageName": "Approve", "actionName": "Ask", "result": {"summary": "", "status": "Approved"}}
    with pytest.raises(ClientError, match="InvalidApprovalTokenException"):
        shop.client("codepipeline").put_approval_result(**answer, token=execution)
    poll(lambda: asked(shop, name))
    shop.client("codepipeline").put_approval_result(**answer, token=approval["token"])
    poll(lambda: shop.status(name, execution) == "Succeeded")
    with pytest.raises(ClientError, match="ApprovalAlreadyCompletedException"):
        shop.client("codepipeline").put_approval_result(**answer, token=approval["token"])


def test_pipelines_are_updated_listed_tagged_and_deleted(shop: Workshop, poll: Poll) -> None:
    client = shop.client("codepipeline")
    declaration = shop.declaration(shop.source(), APPROVE_PLAINLY)
    name = declaration["name"]
    made = client.create_pipeline(pipeline=declaration, tags=[{"key": "a", "value": "1"}])
    assert (made["pipeline"]["version"], made["pipeline"]["executionMode"]) == (1, "SUPERSEDED")
    with pytest.raises(ClientError, match="PipelineNameInUseException"):
        client.create_pipeline(pipeline=declaration)
    assert client.update_pipeline(pipeline={**declaration, "executionMode": "QUEUED"})["pipeline"]["version"] == 2
    assert client.get_pipeline(name=name)["pipeline"]["executionMode"] == "QUEUED"
    assert client.get_pipeline(name=name, version=1)["pipeline"]["executionMode"] == "SUPERSEDED"
    with pytest.raises(ClientError, match="PipelineVersionNotFoundException"):
        client.get_pipeline(name=name, version=3)
    assert [one["version"] for one in client.list_pipelines()["pipelines"] if one["name"] == name] == [2]
    arn = client.get_pipeline(name=name)["metadata"]["pipelineArn"]
    client.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])
    client.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
    poll(lambda: asked(shop, name))
    client.delete_pipeline(name=name)
    client.delete_pipeline(name=name)
    for call in (lambda: client.get_pipeline(name=name), lambda: client.get_pipeline_state(name=name), lambda: shop.executions(name)):
        with pytest.raises(ClientError, match=f"Account '123456789012' does not have a pipeline with name '{name}'"):
            call()
    shop.client("codepipeline").create_pipeline(pipeline=declaration)
    poll(lambda: asked(shop, name))
    assert len(shop.executions(name)) == 1


def test_the_pipelines_role_must_be_trusted_by_that_of_an_action(shop: Workshop, poll: Poll) -> None:
    iam = shop.client("iam")
    trust: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": "codepipeline.amazonaws.com"}, "Action": "sts:AssumeRole"}
    arn = mighty_role(iam, "of-an-action", {"Version": "2012-10-17", "Statement": trust})
    source = shop.source()
    source["actions"][0]["roleArn"] = arn
    name, execution = shop.create(source, APPROVE_PLAINLY)
    poll(lambda: shop.status(name, execution) == "Failed")
    assert f"is not authorized to perform: sts:AssumeRole on resource: {arn}" in shop.error(name, execution, "Take")
    trust["Principal"] = {"AWS": shop.role}
    iam.update_assume_role_policy(RoleName="of-an-action", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust}))
    shop.start(name)
    poll(lambda: asked(shop, name))


def test_what_is_started_wrongly_is_refused(shop: Workshop) -> None:
    client = shop.client("codepipeline")
    name, execution = shop.create(shop.source(), APPROVE_PLAINLY, variables=[{"name": "v", "defaultValue": "1"}])
    revision = {"actionName": "Take", "revisionType": "S3_OBJECT_KEY", "revisionValue": "other.zip"}
    for request, text in (
        ({"variables": [{"name": "x", "value": "1"}]}, "does not declare the variables: x"),
        ({"sourceRevisions": [{**revision, "actionName": "Other"}]}, "no source action 'Other'"),
        ({"sourceRevisions": [{**revision, "revisionType": "COMMIT_ID"}]}, "does not take the revision type COMMIT_ID"),
    ):
        with pytest.raises(ClientError, match=text):
            client.start_pipeline_execution(name=name, **request)
    token = {"clientRequestToken": "once"}
    assert shop.start(name, **token) == shop.start(name, **token) != execution
    with pytest.raises(ClientError, match="not authorized to perform AssumeRole"):
        client.create_pipeline(pipeline={**shop.declaration(shop.source(), APPROVE_PLAINLY), "roleArn": f"{shop.role}-none"})
    with pytest.raises(ClientError, match="codepipeline:PollForJobs is not supported by localcloud"):
        client.poll_for_jobs(actionTypeId={"category": "Build", "owner": "Custom", "provider": "x", "version": "1"})
    with pytest.raises(ClientError, match="PipelineExecutionNotFoundException"):
        client.get_pipeline_execution(pipelineName=name, pipelineExecutionId="00000000-0000-0000-0000-000000000000")
