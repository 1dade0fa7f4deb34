"""What pipelines do: builds, stacks, functions; and what they tell of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region

from helpers_codepipeline import Workshop, action, real_project, stage, unzipped
from helpers_functions import zip_code

Poll = Callable[..., Any]

TEMPLATE = """
Parameters:
  Value: {Type: String}
Resources:
  Thing:
    Type: AWS::SSM::Parameter
    Properties: {Name: !Sub "/${AWS::StackName}", Type: String, Value: !Ref Value}
Outputs:
  Name: {Value: !Ref Thing}
"""


@pytest.fixture(scope="module")
def shop(region: Region) -> Workshop:
    return Workshop(region)


def ended(shop: Workshop, poll: Poll, name: str, execution: str) -> str:
    return str(poll(lambda: (status := shop.status(name, execution)) not in ("InProgress", "Stopping") and status, 60.0))


def artifact(shop: Workshop, detail: dict[str, Any]) -> dict[str, str]:
    place = detail["output"]["outputArtifacts"][0]["s3location"]
    return unzipped(shop.client("s3").get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read())


def test_builds_really_build(shop: Workshop, poll: Poll) -> None:
    project = real_project(
        shop,
        "tr a-z A-Z < in.txt > out.txt",
        'export WHO="$GREETED of $CODEBUILD_RESOLVED_SOURCE_VERSION"',
        env={"exported-variables": ["WHO"]},
        artifacts={"files": ["out.txt"]},
    )
    variables = json.dumps([{"name": "GREETED", "value": "#{variables.who}", "type": "PLAINTEXT"}])
    build = action(
        "Shout",
        "Build/CodeBuild",
        {"ProjectName": project, "EnvironmentVariables": variables},
        inputs=["Source"],
        outputs=["Out"],
        namespace="b",
    )
    tell = action("Tell", "Approval/Manual", {"CustomData": "#{b.WHO}"})
    name, execution = shop.create(
        shop.source(in__txt="hello"), stage("Build", build), stage("Tell", tell), variables=[{"name": "who", "defaultValue": "Ada"}]
    )
    poll(lambda: shop.actions(name, execution).get("Tell", {}).get("input", {}).get("resolvedConfiguration"), 60.0)
    actions = shop.actions(name, execution)
    version = actions["Take"]["output"]["outputVariables"]["VersionId"]
    assert actions["Tell"]["input"]["resolvedConfiguration"]["CustomData"] == f"Ada of {version}"
    assert artifact(shop, actions["Shout"]) == {"out.txt": "HELLO"}
    assert actions["Shout"]["output"]["executionResult"]["externalExecutionId"].startswith(f"{project}:")
    assert actions["Shout"]["output"]["executionResult"]["logStreamARN"].startswith(
        "arn:aws:logs:us-east-1:123456789012:log-group:/aws/codebuild/"
    )


def test_a_failing_test_stops_the_pipeline_there(shop: Workshop, poll: Poll) -> None:
    test = action("Check", "Test/CodeBuild", {"ProjectName": real_project(shop, "exit 3")}, inputs=["Source"])
    name, execution = shop.create(shop.source(), stage("Test", test), stage("Ask", action("Ask", "Approval/Manual")))
    assert ended(shop, poll, name, execution) == "Failed"
    assert shop.error(name, execution, "Check") == (
        "Build terminated with state: FAILED. Phase: BUILD, Code: COMMAND_EXECUTION_ERROR, "
        "Message: Error while executing command: exit 3. Reason: exit status 3"
    )
    assert set(shop.actions(name, execution)) == {"Take", "Check"}
    missing = action("Check", "Test/CodeBuild", {"ProjectName": "missing"}, inputs=["Source"])
    name, execution = shop.create(shop.source(), stage("Test", missing))
    assert ended(shop, poll, name, execution) == "Failed"
    assert re.fullmatch(
        r"Error calling startBuild: .*missing.* \(Service: AWSCodeBuild; Status Code: 400; Error Code: ResourceNotFoundException\)",
        shop.error(name, execution, "Check"),
    )


def deploy(shop: Workshop, name: str, mode: str, stack: str, **configuration: str) -> dict[str, Any]:
    settings = {"ActionMode": mode, "StackName": stack, **configuration}
    if mode != "CHANGE_SET_EXECUTE":
        settings["RoleArn"] = shop.role
    return action(name, "Deploy/CloudFormation", settings, inputs=["Source"])


def test_a_stack_is_created_updated_left_alone_and_deleted(shop: Workshop, poll: Poll) -> None:
    stack = shop.name("stack")
    settings = {"TemplatePath": "Source::t.yaml", "TemplateConfiguration": "Source::c.json", "OutputFileName": "out.json"}
    make = {**deploy(shop, "Make", "CREATE_UPDATE", stack, **settings, ParameterOverrides='{"Value": "#{variables.value}"}')}
    make |= {"outputArtifacts": [{"name": "Outputs"}], "namespace": "made"}
    tell = action("Tell", "Approval/Manual", {"CustomData": "#{made.Name}"})
    source = shop.source(t__yaml=TEMPLATE, c__json='{"Parameters": {"Value": "unused"}, "Tags": {"team": "ml"}}')
    name, execution = shop.create(source, stage("Deploy", make), stage("Tell", tell), variables=[{"name": "value", "defaultValue": "one"}])
    client, ssm = shop.client("codepipeline"), shop.client("ssm")

    def told(identifier: str) -> dict[str, Any]:
        poll(lambda: shop.actions(name, identifier).get("Tell", {}).get("input", {}).get("resolvedConfiguration"), 60.0)
        actions = shop.actions(name, identifier)
        client.stop_pipeline_execution(pipelineName=name, pipelineExecutionId=identifier, abandon=True)
        assert ended(shop, poll, name, identifier) == "Stopped"
        return actions

    actions = told(execution)
    assert actions["Tell"]["input"]["resolvedConfiguration"]["CustomData"] == f"/{stack}"
    assert json.loads(artifact(shop, actions["Make"])["out.json"]) == {"Name": f"/{stack}"}
    assert ssm.get_parameter(Name=f"/{stack}")["Parameter"]["Value"] == "one"
    assert shop.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Tags"] == [{"Key": "team", "Value": "ml"}]
    assert told(shop.start(name))["Make"]["status"] == "Succeeded", "nothing to update is no failure"
    told(shop.start(name, variables=[{"name": "value", "value": "two"}]))
    assert ssm.get_parameter(Name=f"/{stack}")["Parameter"]["Value"] == "two"
    remove = deploy(shop, "Remove", "DELETE_ONLY", stack)
    name, execution = shop.create(shop.source(), stage("Deploy", {**remove, "inputArtifacts": []}))
    assert ended(shop, poll, name, execution) == "Succeeded"
    with pytest.raises(ClientError, match="does not exist"):
        shop.client("cloudformation").describe_stacks(StackName=stack)
    assert ended(shop, poll, name, shop.start(name)) == "Succeeded", "what is gone already needs no deleting"


def test_change_sets_are_made_and_executed_also_without_changes(shop: Workshop, poll: Poll) -> None:
    stack = shop.name("stack")
    overrides = json.dumps({"Value": {"Fn::GetParam": ["Source", "p.json", "value"]}})
    make = deploy(
        shop, "Make", "CHANGE_SET_REPLACE", stack, ChangeSetName="next", TemplatePath="Source::t.yaml", ParameterOverrides=overrides
    )
    execute = {**deploy(shop, "Execute", "CHANGE_SET_EXECUTE", stack, ChangeSetName="next"), "inputArtifacts": [], "runOrder": 2}
    name, execution = shop.create(shop.source(t__yaml=TEMPLATE, p__json='{"value": "deep"}'), stage("Deploy", make, execute))
    assert ended(shop, poll, name, execution) == "Succeeded", shop.actions(name, execution)
    assert shop.client("ssm").get_parameter(Name=f"/{stack}")["Parameter"]["Value"] == "deep"
    second = shop.start(name)
    assert ended(shop, poll, name, second) == "Succeeded"
    assert "didn't contain changes" in shop.actions(name, second)["Make"]["output"]["executionResult"]["externalExecutionSummary"]


def test_a_stack_that_fails_says_why(shop: Workshop, poll: Poll) -> None:
    broken = TEMPLATE.replace("Type: String, Value: !Ref Value", "Type: Wrong, Value: !Ref Value")
    settings = {"TemplatePath": "Source::t.yaml", "ParameterOverrides": '{"Value": "x"}'}
    name, execution = shop.create(
        shop.source(t__yaml=broken), stage("Deploy", deploy(shop, "Make", "CREATE_UPDATE", shop.name("s"), **settings))
    )
    assert ended(shop, poll, name, execution) == "Failed"
    assert "Thing: " in shop.error(name, execution, "Make") or "Wrong" in shop.error(name, execution, "Make")
    settings["TemplatePath"] = "Source::missing.yaml"
    name, execution = shop.create(shop.source(), stage("Deploy", deploy(shop, "Make", "CREATE_UPDATE", shop.name("s"), **settings)))
    assert ended(shop, poll, name, execution) == "Failed"
    assert shop.error(name, execution, "Make") == "File [missing.yaml] does not exist in artifact [Source]"


FUNCTION = """
import boto3

def handler(event, context):
    job = event["CodePipeline.job"]
    pipeline, asked = boto3.client("codepipeline"), job["data"]["actionConfiguration"]["configuration"]["UserParameters"]
    if asked == "fail":
        pipeline.put_job_failure_result(jobId=job["id"], failureDetails={"type": "JobFailed", "message": "asked to fail"})
    elif "continuationToken" not in job["data"]:
        pipeline.put_job_success_result(jobId=job["id"], continuationToken="half way")
    else:
        place = job["data"]["inputArtifacts"][0]["location"]["s3Location"]
        size = boto3.client("s3").head_object(Bucket=place["bucketName"], Key=place["objectKey"])["ContentLength"]
        pipeline.put_job_success_result(jobId=job["id"], outputVariables={"size": str(size)}, executionDetails={"summary": "weighed"})
"""


def test_functions_tell_how_their_jobs_went(shop: Workshop, poll: Poll) -> None:
    function = shop.name("function")
    shop.client("lambda").create_function(
        FunctionName=function, Runtime="python3.11", Role=shop.role, Handler="app.handler", Code={"ZipFile": zip_code(FUNCTION)}, Timeout=60
    )
    weigh = action("Weigh", "Invoke/Lambda", {"FunctionName": function, "UserParameters": "#{variables.do}"}, inputs=["Source"])
    name, execution = shop.create(shop.source(), stage("Weigh", weigh), variables=[{"name": "do", "defaultValue": "weigh"}])
    assert ended(shop, poll, name, execution) == "Succeeded"
    output = shop.actions(name, execution)["Weigh"]["output"]
    assert int(output["outputVariables"]["size"]) > 0
    assert output["executionResult"]["externalExecutionSummary"] == "weighed"
    failing = shop.start(name, variables=[{"name": "do", "value": "fail"}])
    assert ended(shop, poll, name, failing) == "Failed"
    assert shop.error(name, failing, "Weigh") == "asked to fail"
    job = shop.actions(name, failing)["Weigh"]["actionExecutionId"]
    for identifier, code in ((job, "InvalidJobStateException"), (failing, "JobNotFoundException")):
        with pytest.raises(ClientError, match=code):
            shop.client("codepipeline").put_job_success_result(jobId=identifier)


def test_what_happens_is_told_in_events(shop: Workshop, poll: Poll) -> None:
    events, logs, group = shop.client("events"), shop.client("logs"), shop.name("events")
    logs.create_log_group(logGroupName=group)
    events.put_rule(Name=group, EventPattern=json.dumps({"source": ["aws.codepipeline"]}))
    events.put_targets(Rule=group, Targets=[{"Id": "1", "Arn": f"arn:aws:logs:us-east-1:123456789012:log-group:{group}"}])
    check = action("Check", "Test/CodeBuild", {"ProjectName": "missing"}, inputs=["Source"])
    name, execution = shop.create(shop.source(), stage("Test", check))

    def told() -> list[dict[str, Any]]:
        found = [json.loads(event["message"]) for event in logs.filter_log_events(logGroupName=group)["events"]]
        return [event for event in found if event["detail"]["pipeline"] == name]

    poll(lambda: any(event["detail"]["state"] == "FAILED" and "stage" not in event["detail"] for event in told()), 60.0)
    poll(lambda: len(told()) == 10, 60.0)
    seen = {
        (event["detail-type"].split()[1], event["detail"].get("action") or event["detail"].get("stage"), event["detail"]["state"])
        for event in told()
    }
    assert seen == {
        ("Pipeline", None, "STARTED"), ("Stage", "Source", "STARTED"), ("Action", "Take", "STARTED"), ("Action", "Take", "SUCCEEDED"),
        ("Stage", "Source", "SUCCEEDED"), ("Stage", "Test", "STARTED"), ("Action", "Check", "STARTED"), ("Action", "Check", "FAILED"),
        ("Stage", "Test", "FAILED"), ("Pipeline", None, "FAILED"),
    }  # fmt: skip
    for event in told():
        assert event["resources"] == [f"arn:aws:codepipeline:us-east-1:123456789012:{name}"]
        assert (event["detail"]["execution-id"], event["detail"]["version"]) == (execution, 1)
    failed = next(event["detail"] for event in told() if event["detail"].get("action") == "Check" and event["detail"]["state"] == "FAILED")
    assert failed["type"] == {"owner": "AWS", "provider": "CodeBuild", "category": "Test", "version": "1"}
    assert failed["execution-result"] == {
        "error-code": "JobFailed",
        "external-execution-summary": shop.error(name, execution, "Check"),
    }
    taken = next(event["detail"] for event in told() if event["detail"].get("action") == "Take" and event["detail"]["state"] == "SUCCEEDED")
    assert taken["output-artifacts"][0]["s3location"]["bucket"] == shop.store


STACK = """
Parameters:
  Store: {Type: String}
  Role: {Type: String}
  Words: {Type: String}
Conditions:
  Frozen: !Equals [!Ref Words, frozen]
Resources:
  Connection:
    Type: AWS::CodeConnections::Connection
    Properties: {ConnectionName: from-a-stack, ProviderType: GitHub}
  Old:
    Type: AWS::CodeStarConnections::Connection
    Properties: {ConnectionName: old, ProviderType: Bitbucket}
  Pipeline:
    Type: AWS::CodePipeline::Pipeline
    Properties:
      RoleArn: !Ref Role
      PipelineType: V2
      ExecutionMode: QUEUED
      ArtifactStore: {Type: S3, Location: !Ref Store}
      DisableInboundStageTransitions: !If [Frozen, [{StageName: Ask, Reason: Freeze}], !Ref AWS::NoValue]
      Triggers:
        - ProviderType: CodeStarSourceConnection
          GitConfiguration: {SourceActionName: Checkout, Push: [{Branches: {Includes: [main]}, FilePaths: {Excludes: ["docs/**"]}}]}
      Stages:
        - Name: Source
          Actions:
            - Name: Checkout
              ActionTypeId: {Category: Source, Owner: AWS, Provider: CodeStarSourceConnection, Version: "1"}
              Configuration: {ConnectionArn: !Ref Connection, FullRepositoryId: team/stack, BranchName: main, DetectChanges: false}
              OutputArtifacts: [{Name: Source}]
        - Name: Ask
          Actions:
            - Name: Ask
              ActionTypeId: {Category: Approval, Owner: AWS, Provider: Manual, Version: "1"}
              Configuration: {CustomData: !Ref Words}
Outputs:
  Name: {Value: !Ref Pipeline}
  Version: {Value: !GetAtt Pipeline.Version}
  Status: {Value: !GetAtt Connection.ConnectionStatus}
  Old: {Value: !Ref Old}
"""


def test_pipelines_and_connections_are_made_by_stacks(shop: Workshop, poll: Poll) -> None:
    client = shop.client("cloudformation")

    def parameters(words: str) -> list[dict[str, str]]:
        values = {"Store": shop.store, "Role": shop.role, "Words": words}
        return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]

    def outputs(status: str) -> dict[str, str]:
        found = poll(
            lambda: (stack := client.describe_stacks(StackName="pipe")["Stacks"][0])["StackStatus"].endswith("COMPLETE") and stack, 60.0
        )
        assert found["StackStatus"] == status
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    client.create_stack(StackName="pipe", TemplateBody=STACK, Parameters=parameters("frozen"), Tags=[{"Key": "team", "Value": "ml"}])
    made = outputs("CREATE_COMPLETE")
    assert made["Name"].startswith("pipe-Pipeline-")
    assert (made["Version"], made["Status"]) == ("1", "PENDING")
    assert made["Old"].startswith("arn:aws:codestar-connections:")
    pipelines, name = shop.client("codepipeline"), made["Name"]
    arn = pipelines.get_pipeline(name=name)["metadata"]["pipelineArn"]
    assert pipelines.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "team", "value": "ml"}]
    declared = pipelines.get_pipeline(name=name)["pipeline"]
    assert declared["stages"][0]["actions"][0]["configuration"]["DetectChanges"] == "false"
    assert (declared["executionMode"], declared["triggers"][0]["gitConfiguration"]["push"][0]["filePaths"]) == (
        "QUEUED",
        {"excludes": ["docs/**"]},
    )
    assert shop.stage_state(name, "Ask")["inboundTransitionState"]["disabledReason"] == "Freeze"
    client.update_stack(StackName="pipe", UsePreviousTemplate=True, Parameters=parameters("go"))
    assert outputs("UPDATE_COMPLETE")["Version"] == "2"
    assert shop.stage_state(name, "Ask")["inboundTransitionState"] == {"enabled": True}
    client.delete_stack(StackName="pipe")
    poll(lambda: name not in [one["name"] for one in pipelines.list_pipelines()["pipelines"]], 60.0)
