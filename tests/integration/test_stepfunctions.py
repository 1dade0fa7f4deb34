"""Step Functions as its users see it, and what is left of executions, events and invocations after kill -9."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from helpers_errors import error_of
from helpers_functions import Lab
from helpers_processes import Process

ROOT = Path(__file__).resolve().parents[2]
INVOKE = "arn:aws:states:::lambda:invoke"
PASS = {"Type": "Pass", "End": True}


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


def machine(lab: Lab, states: dict[str, Any], **options: Any) -> str:
    definition = {"StartAt": next(iter(states)), "States": states, **options.pop("top", {})}
    settings = {"name": lab.name("machine"), "definition": json.dumps(definition), "roleArn": lab.role}
    return str(lab.client("stepfunctions").create_state_machine(**{**settings, **options})["stateMachineArn"])


def run(lab: Lab, arn: str, value: Any = None) -> dict[str, Any]:
    """Start an execution, wait for its end and return its description."""
    sfn = lab.client("stepfunctions")
    execution = sfn.start_execution(stateMachineArn=arn, input=json.dumps({} if value is None else value))["executionArn"]

    def ended() -> Any:
        description = sfn.describe_execution(executionArn=execution)
        return description if description["status"] != "RUNNING" else None

    description: dict[str, Any] = lab.poll(ended)
    return description


def history(lab: Lab, execution_arn: str) -> list[dict[str, Any]]:
    paginator = lab.client("stepfunctions").get_paginator("get_execution_history")
    return [event for page in paginator.paginate(executionArn=execution_arn) for event in page["events"]]


def task(name: str, **members: Any) -> dict[str, Any]:
    state = {
        "Type": "Task",
        "Resource": INVOKE,
        "Parameters": {"FunctionName": name, "Payload.$": "$"},
        "ResultSelector": {"value.$": "$.Payload"},
        "OutputPath": "$.value",
    }
    return {**state, **({} if "Next" in members else {"End": True}), **members}


# Running


def test_three_functions_in_a_chain(lab: Lab) -> None:
    names = [lab.function("def handler(event, context): return {**event, context.function_name: len(event)}") for _ in range(3)]
    arn = machine(lab, {"A": task(names[0], Next="B"), "B": task(names[1], Next="C"), "C": task(names[2])})
    description = run(lab, arn, {"a": 1})
    assert description["status"] == "SUCCEEDED"
    assert json.loads(description["output"]) == {"a": 1, names[0]: 1, names[1]: 2, names[2]: 3}
    assert description["output"] == json.dumps(json.loads(description["output"]), separators=(",", ":"))
    assert description["stopDate"] >= description["startDate"]
    events = history(lab, description["executionArn"])
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["executionStartedEventDetails"]["input"] == '{"a":1}'
    assert events[-1]["executionSucceededEventDetails"]["output"] == description["output"]
    scheduled = next(event["taskScheduledEventDetails"] for event in events if event["type"] == "TaskScheduled")
    assert (scheduled["resourceType"], scheduled["resource"], scheduled["region"]) == ("lambda", "invoke", "us-east-1")


def test_the_whole_result_of_lambda_invoke(lab: Lab) -> None:
    arn = machine(
        lab,
        {
            "A": {
                "Type": "Task",
                "Resource": INVOKE,
                "Parameters": {"FunctionName": lab.function("def handler(e, c): return e"), "Payload": [1]},
                "End": True,
            }
        },
    )
    result = json.loads(run(lab, arn)["output"])
    assert (result["Payload"], result["StatusCode"], result["ExecutedVersion"]) == ([1], 200, "$LATEST")
    assert result["SdkHttpMetadata"]["HttpStatusCode"] == 200
    assert result["SdkResponseMetadata"]["RequestId"]


def test_a_functions_exception_is_caught_by_its_name_with_its_document_as_cause(lab: Lab) -> None:
    name = lab.function(
        "class LowConfidenceError(Exception): pass\ndef handler(event, context): raise LowConfidenceError('THRESHOLD_CONFIDENCE_NOT_MET')"
    )
    catch = [{"ErrorEquals": ["LowConfidenceError"], "ResultPath": "$.low", "Next": "Read"}]
    read = {"Type": "Pass", "Parameters": {"photo.$": "$.photo", "why.$": "States.StringToJson($.low.Cause)"}, "End": True}
    output = json.loads(run(lab, machine(lab, {"A": task(name, Catch=catch), "Read": read}), {"photo": "p"})["output"])
    assert output["photo"] == "p"
    assert (output["why"]["errorType"], output["why"]["errorMessage"]) == ("LowConfidenceError", "THRESHOLD_CONFIDENCE_NOT_MET")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def handler(e, c): raise ValueError('x')", "ValueError"),
        ("import os\ndef handler(e, c): os._exit(1)", "Runtime.ExitError"),
        ("def handler(e, c):\n    while True: pass", "Sandbox.Timedout"),
        ("import nothing", "Runtime.ImportModuleError"),
    ],
)
def test_an_uncaught_failure_of_a_function_fails_the_execution(lab: Lab, code: str, error: str) -> None:
    description = run(lab, machine(lab, {"A": task(lab.function(code, Timeout=1))}))
    assert (description["status"], description["error"]) == ("FAILED", error)
    assert json.loads(description["cause"])["errorType"] == error


def test_a_function_that_is_not_there(lab: Lab) -> None:
    description = run(lab, machine(lab, {"A": task("none")}))
    assert description["error"] == "Lambda.ResourceNotFoundException"
    assert description["cause"].startswith(
        "Function not found: arn:aws:lambda:us-east-1:123456789012:function:none (Service: Lambda, Status Code: 404"
    )


def test_a_functions_arn_as_the_resource(lab: Lab) -> None:
    name = lab.function("def handler(event, context): return event['n'] + 1")
    arn = machine(lab, {"A": {"Type": "Task", "Resource": f"arn:aws:lambda:us-east-1:123456789012:function:{name}", "End": True}})
    description = run(lab, arn, {"n": 1})
    assert description["output"] == "2"
    assert "LambdaFunctionSucceeded" in [event["type"] for event in history(lab, description["executionArn"])]


def test_a_timeout_of_the_state_and_of_the_machine(lab: Lab) -> None:
    name = lab.function("import time\ndef handler(event, context): time.sleep(5)", Timeout=30)
    caught = machine(lab, {"A": task(name, TimeoutSeconds=1, Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "B"}]), "B": PASS})
    assert json.loads(run(lab, caught)["output"]) == {"Error": "States.Timeout", "Cause": ""}
    description = run(lab, machine(lab, {"A": {"Type": "Wait", "Seconds": 60, "End": True}}, top={"TimeoutSeconds": 1}))
    assert (description["status"], description["error"]) == ("TIMED_OUT", "States.Timeout")
    assert history(lab, description["executionArn"])[-1]["type"] == "ExecutionTimedOut"


def test_a_payload_above_the_limit_fails_with_its_name(lab: Lab) -> None:
    description = run(lab, machine(lab, {"A": task(lab.function("def handler(e, c): return 'x' * 300000"))}))
    assert description["error"] == "States.DataLimitExceeded"


def test_many_executions_at_once(lab: Lab) -> None:
    arn = machine(lab, {"W": {"Type": "Wait", "Seconds": 1, "Next": "P"}, "P": PASS})
    sfn = lab.client("stepfunctions")
    started = [sfn.start_execution(stateMachineArn=arn, input=str(number))["executionArn"] for number in range(150)]
    before = threading.active_count()
    lab.poll(
        lambda: all(sfn.describe_execution(executionArn=execution)["status"] == "SUCCEEDED" for execution in (started[0], started[-1]))
    )
    assert [sfn.describe_execution(executionArn=execution)["output"] for execution in started] == [str(number) for number in range(150)]
    assert before < 150 + 60


# Integrations


def test_a_message_to_a_queue(lab: Lab) -> None:
    url, _ = lab.queue()
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage",
        "Parameters": {"QueueUrl": url, "MessageBody.$": "$"},
        "ResultPath": "$.sent",
        "End": True,
    }
    output = json.loads(run(lab, machine(lab, {"A": state}), {"photo": "p"})["output"])
    message = lab.receive(url)
    assert json.loads(message["Body"]) == {"photo": "p"}
    assert (output["sent"]["MessageId"], output["sent"]["MD5OfMessageBody"]) == (message["MessageId"], message["MD5OfBody"])
    description = run(lab, machine(lab, {"A": {**state, "Parameters": {"QueueUrl": url + "-none", "MessageBody": "x"}}}))
    assert description["error"] == "SQS.QueueDoesNotExistException"


def test_a_message_with_a_delay_goes_over_the_api(lab: Lab) -> None:
    url, _ = lab.queue()
    parameters = {
        "QueueUrl": url,
        "MessageBody": {"a": 1},
        "DelaySeconds": 0,
        "MessageAttributes": {"k": {"DataType": "String", "StringValue": "v"}},
    }
    assert (
        run(
            lab,
            machine(lab, {"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Parameters": parameters, "End": True}}),
        )["status"]
        == "SUCCEEDED"
    )
    message = lab.receive(url)
    assert json.loads(message["Body"]) == {"a": 1}
    assert message["MessageAttributes"]["k"]["StringValue"] == "v"


def test_a_topic_and_a_bus(lab: Lab) -> None:
    url, arn = lab.queue()
    sns, events = lab.client("sns"), lab.client("events")
    topic = sns.create_topic(Name="from-workflow")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    events.put_rule(Name="from-workflow", EventPattern='{"source": ["workflow"]}')
    events.put_targets(Rule="from-workflow", Targets=[{"Id": "q", "Arn": arn, "InputPath": "$.detail"}])
    states = {
        "S": {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Parameters": {"TopicArn": topic, "Message": {"m": 1}}, "ResultPath": "$.s", "Next": "E"},
        "E": {
            "Type": "Task", "Resource": "arn:aws:states:::events:putEvents", "End": True,
            "Parameters": {"Entries": [{"Source": "workflow", "DetailType": "t", "Detail": {"e.$": "$.n"}}]},
        },
    }  # fmt: skip
    description = run(lab, machine(lab, states), {"n": 2})
    assert json.loads(description["output"])["FailedEntryCount"] == 0
    assert sorted(lab.receive(url)["Body"] for _ in range(2)) == ['{"e": 2}', '{"m":1}']


def test_a_failed_entry_fails_the_task(lab: Lab) -> None:
    parameters = {"Entries": [{"Source": "aws.mine", "DetailType": "t", "Detail": {}}]}
    description = run(
        lab, machine(lab, {"E": {"Type": "Task", "Resource": "arn:aws:states:::events:putEvents", "Parameters": parameters, "End": True}})
    )
    assert description["error"] == "EventBridge.FailedEntry"


def test_operations_of_the_sdk(lab: Lab) -> None:
    lab.client("s3").create_bucket(Bucket="sdk")
    states: dict[str, dict[str, Any]] = {
        "Put": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:putObject", "Parameters": {"Bucket": "sdk", "Key": "k", "Body.$": "$"}, "ResultPath": None, "Next": "Get"},
        "Get": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:getObject", "Parameters": {"Bucket": "sdk", "Key": "k"}, "ResultPath": "$.got", "Next": "List"},
        "List": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sfn:listStateMachines", "Parameters": {"MaxResults": 1}, "ResultPath": "$.machines", "End": True},
    }  # fmt: skip
    output = json.loads(run(lab, machine(lab, states), {"a": 1})["output"])
    assert json.loads(output["got"]["Body"]) == {"a": 1}
    assert output["got"]["LastModified"].endswith("Z")
    assert output["machines"]["StateMachines"][0]["StateMachineArn"].startswith("arn:aws:states:")
    missing = {**states["Get"], "Parameters": {"Bucket": "sdk", "Key": "none"}, "End": True}
    del missing["Next"]
    description = run(lab, machine(lab, {"Get": missing}))
    assert description["error"] == "S3.NoSuchKeyException"
    assert "(Service: S3, Status Code: 404" in description["cause"]


def test_another_state_machine_with_and_without_waiting(lab: Lab) -> None:
    child = machine(lab, {"C": {"Type": "Pass", "Parameters": {"doubled.$": "States.MathAdd($.n, $.n)"}, "End": True}})
    failing = machine(lab, {"C": {"Type": "Fail", "Error": "Broken", "Cause": "on purpose"}})
    parameters = {"StateMachineArn": child, "Input": {"n.$": "$.n"}}

    def start(kind: str, **changes: Any) -> dict[str, Any]:
        return run(
            lab,
            machine(
                lab,
                {
                    "A": {
                        "Type": "Task",
                        "Resource": f"arn:aws:states:::states:startExecution{kind}",
                        "Parameters": {**parameters, **changes},
                        "End": True,
                    }
                },
            ),
            {"n": 4},
        )

    assert json.loads(start("")["output"])["ExecutionArn"].startswith("arn:aws:states:us-east-1:123456789012:execution:")
    assert json.loads(json.loads(start(".sync")["output"])["Output"]) == {"doubled": 8}
    assert json.loads(start(".sync:2")["output"])["Output"] == {"doubled": 8}
    description = start(".sync:2", StateMachineArn=failing)
    assert description["error"] == "States.TaskFailed"
    assert json.loads(description["cause"])["Error"] == "Broken"
    assert start("", StateMachineArn=child + "x")["error"] == "StepFunctions.StateMachineDoesNotExistException"


# The API


def test_a_state_machine_is_created_described_changed_and_deleted(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    arn = machine(lab, {"A": PASS}, name="life", tags=[{"key": "k", "value": "v"}])
    described = sfn.describe_state_machine(stateMachineArn=arn)
    assert (described["name"], described["status"], described["type"], described["roleArn"]) == ("life", "ACTIVE", "STANDARD", lab.role)
    again = sfn.create_state_machine(name="life", definition=described["definition"], roleArn=lab.role)
    assert again["stateMachineArn"] == arn
    changed = json.dumps({"StartAt": "B", "States": {"B": PASS}})
    assert error_of(lambda: sfn.create_state_machine(name="life", definition=changed, roleArn=lab.role))[0] == "StateMachineAlreadyExists"
    first = run(lab, arn)["executionArn"]
    revision = sfn.update_state_machine(stateMachineArn=arn, definition=changed)["revisionId"]
    assert sfn.describe_state_machine(stateMachineArn=arn)["revisionId"] == revision != described["revisionId"]
    second = run(lab, arn)["executionArn"]
    ran = [
        json.loads(sfn.describe_state_machine_for_execution(executionArn=execution)["definition"])["StartAt"]
        for execution in (first, second)
    ]
    assert ran == ["A", "B"]
    assert sfn.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "k", "value": "v"}]
    sfn.untag_resource(resourceArn=arn, tagKeys=["k"])
    assert sfn.list_tags_for_resource(resourceArn=arn)["tags"] == []
    assert "life" in [found["name"] for page in sfn.get_paginator("list_state_machines").paginate() for found in page["stateMachines"]]
    sfn.delete_state_machine(stateMachineArn=arn)
    assert error_of(lambda: sfn.describe_state_machine(stateMachineArn=arn)) == (
        "StateMachineDoesNotExist",
        f"State Machine Does Not Exist: '{arn}'",
    )
    assert error_of(lambda: sfn.start_execution(stateMachineArn=arn))[0] == "StateMachineDoesNotExist"
    sfn.delete_state_machine(stateMachineArn=arn)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"definition": "{"}, "InvalidDefinition", "Invalid State Machine Definition: 'INVALID_JSON_DESCRIPTION"),
        ({"definition": '{"StartAt": "X", "States": {"A": {"Type": "Succeed"}}}'}, "InvalidDefinition", "MISSING_TRANSITION_TARGET: Missing 'Next' target: X at /StartAt"),
        ({"definition": '{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "arn:aws:states:::glue:startJobRun", "End": true}}}'}, "InvalidDefinition", "not supported by localcloud"),
        ({"name": "with space"}, "InvalidName", "Invalid Name: 'with space'"),
        ({"roleArn": "arn:aws:iam::123456789012:role/none"}, "AccessDeniedException", "is authorized to assume the provided role"),
        ({"roleArn": "nonsense"}, "InvalidArn", "Invalid Role Arn: 'nonsense'"),
        ({"loggingConfiguration": {"level": "ALL"}}, "InvalidLoggingConfiguration", "Must specify exactly one Log Destination"),
    ],
)  # fmt: skip
def test_state_machines_that_are_refused(lab: Lab, changes: dict[str, Any], code: str, message: str) -> None:
    found = error_of(lambda: machine(lab, {"A": PASS}, **changes))
    assert found[0] == code
    assert message in found[1]


def test_validate_state_machine_definition(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    assert sfn.validate_state_machine_definition(definition=json.dumps({"StartAt": "A", "States": {"A": PASS}}))["result"] == "OK"
    answer = sfn.validate_state_machine_definition(definition=json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass"}}}))
    assert answer["result"] == "FAIL"
    assert {"severity": "ERROR", "code": "SCHEMA_VALIDATION_FAILED", "location": "/States/A"}.items() <= answer["diagnostics"][0].items()


def test_names_of_executions(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    arn = machine(lab, {"W": {"Type": "Wait", "Seconds": 600, "End": True}})
    first = sfn.start_execution(stateMachineArn=arn, name="one", input='{"a": 1}')
    again = sfn.start_execution(stateMachineArn=arn, name="one", input='{"a": 1}')
    assert (first["executionArn"], first["startDate"]) == (again["executionArn"], again["startDate"])
    code, message = error_of(lambda: sfn.start_execution(stateMachineArn=arn, name="one", input='{"a": 2}'))
    assert (code, message) == ("ExecutionAlreadyExists", f"Execution Already Exists: '{first['executionArn']}'")
    sfn.stop_execution(executionArn=first["executionArn"])
    assert error_of(lambda: sfn.start_execution(stateMachineArn=arn, name="one", input='{"a": 1}'))[0] == "ExecutionAlreadyExists"
    assert error_of(lambda: sfn.start_execution(stateMachineArn=arn, name="a b"))[0] == "InvalidName"
    assert error_of(lambda: sfn.start_execution(stateMachineArn=arn, input="nonsense"))[0] == "InvalidExecutionInput"
    assert error_of(lambda: sfn.start_execution(stateMachineArn=arn, input=json.dumps("x" * 262_144)))[0] == "ValidationException"
    assert error_of(lambda: sfn.describe_execution(executionArn=first["executionArn"] + "x"))[0] == "ExecutionDoesNotExist"
    assert error_of(lambda: sfn.describe_execution(executionArn="nonsense"))[0] == "InvalidArn"


def test_a_running_execution_is_listed_and_stopped(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    arn = machine(lab, {"W": {"Type": "Wait", "Seconds": 600, "End": True}})
    execution = sfn.start_execution(stateMachineArn=arn)["executionArn"]
    lab.poll(lambda: len(sfn.get_execution_history(executionArn=execution)["events"]) == 2)
    assert [found["status"] for found in sfn.list_executions(stateMachineArn=arn)["executions"]] == ["RUNNING"]
    sfn.stop_execution(executionArn=execution, error="Enough", cause="stopped by hand")
    description = sfn.describe_execution(executionArn=execution)
    assert (description["status"], description["error"], description["cause"]) == ("ABORTED", "Enough", "stopped by hand")
    assert history(lab, execution)[-1]["executionAbortedEventDetails"] == {"error": "Enough", "cause": "stopped by hand"}
    assert sfn.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"] == []
    assert sfn.stop_execution(executionArn=execution)["stopDate"] == description["stopDate"]


def test_a_functions_invocation_goes_on_when_its_execution_is_stopped(lab: Lab, tmp_path: Path) -> None:
    code = f"import pathlib, time\nhere = pathlib.Path({str(tmp_path)!r})\ndef handler(event, context):\n    (here / 'began').touch()\n    while not (here / 'go').exists(): time.sleep(0.01)\n    (here / 'ended').touch()"
    sfn, arn = lab.client("stepfunctions"), machine(lab, {"A": task(lab.function(code, Timeout=60))})
    execution = sfn.start_execution(stateMachineArn=arn)["executionArn"]
    lab.poll(lambda: (tmp_path / "began").exists())
    sfn.stop_execution(executionArn=execution)
    assert sfn.describe_execution(executionArn=execution)["status"] == "ABORTED"
    (tmp_path / "go").touch()
    lab.poll(lambda: (tmp_path / "ended").exists())


def test_executions_are_listed_the_newest_first_in_pages(lab: Lab) -> None:
    sfn, arn = lab.client("stepfunctions"), machine(lab, {"A": PASS})
    arns = [run(lab, arn)["executionArn"] for _ in range(3)]
    pages = [
        page["executions"] for page in sfn.get_paginator("list_executions").paginate(stateMachineArn=arn, PaginationConfig={"PageSize": 2})
    ]
    assert [[found["executionArn"] for found in page] for page in pages] == [[arns[2], arns[1]], [arns[0]]]
    reverse = sfn.get_execution_history(executionArn=arns[0], reverseOrder=True, maxResults=1)["events"]
    assert reverse[0]["type"] == "ExecutionSucceeded"


def test_versions_and_aliases(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    arn = machine(lab, {"A": {"Type": "Pass", "Result": 1, "End": True}}, publish=True, versionDescription="first")
    sfn.update_state_machine(
        stateMachineArn=arn, definition=json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": 2, "End": True}}})
    )
    assert sfn.publish_state_machine_version(stateMachineArn=arn)["stateMachineVersionArn"] == f"{arn}:2"
    assert sfn.publish_state_machine_version(stateMachineArn=arn)["stateMachineVersionArn"] == f"{arn}:2"
    assert [found["stateMachineVersionArn"] for found in sfn.list_state_machine_versions(stateMachineArn=arn)["stateMachineVersions"]] == [
        f"{arn}:2",
        f"{arn}:1",
    ]
    routes = [{"stateMachineVersionArn": f"{arn}:1", "weight": 100}]
    alias = sfn.create_state_machine_alias(name="live", routingConfiguration=routes)["stateMachineAliasArn"]
    description = run(lab, alias)
    assert (description["output"], description["stateMachineVersionArn"], description["stateMachineAliasArn"]) == ("1", f"{arn}:1", alias)
    assert run(lab, f"{arn}:2")["output"] == "2"
    assert json.loads(sfn.describe_state_machine(stateMachineArn=f"{arn}:1")["definition"])["States"]["A"]["Result"] == 1
    assert error_of(lambda: sfn.delete_state_machine_version(stateMachineVersionArn=f"{arn}:1"))[0] == "ConflictException"
    sfn.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=[{"stateMachineVersionArn": f"{arn}:2", "weight": 100}])
    assert run(lab, alias)["output"] == "2"
    assert (
        error_of(lambda: sfn.create_state_machine_alias(name="x", routingConfiguration=[{**routes[0], "weight": 50}]))[0]
        == "ValidationException"
    )
    sfn.delete_state_machine_alias(stateMachineAliasArn=alias)
    sfn.delete_state_machine_version(stateMachineVersionArn=f"{arn}:1")
    assert error_of(lambda: sfn.start_execution(stateMachineArn=f"{arn}:1"))[0] == "StateMachineDoesNotExist"


def test_express_workflows(lab: Lab) -> None:
    # The SDK puts "sync-" before the host of this operation, which an endpoint of one's own has no use for.
    sfn = boto3.client(
        "stepfunctions", endpoint_url=lab.region.endpoint_url, region_name="us-east-1", config=Config(inject_host_prefix=False)
    )
    arn = machine(lab, {"A": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "End": True}}, type="EXPRESS")
    answer = sfn.start_sync_execution(stateMachineArn=arn, input='{"n": 1}')
    assert (answer["status"], answer["output"]) == ("SUCCEEDED", '{"n":2}')
    assert ":express:" in answer["executionArn"]
    failed = sfn.start_sync_execution(stateMachineArn=arn, input='{"n": "x"}')
    assert (failed["status"], failed["error"]) == ("FAILED", "States.IntrinsicFailure")
    standard = machine(lab, {"A": PASS})
    assert error_of(lambda: sfn.start_sync_execution(stateMachineArn=standard))[0] == "StateMachineTypeNotSupported"
    assert ":express:" in sfn.start_execution(stateMachineArn=arn, input='{"n": 1}')["executionArn"]
    assert error_of(lambda: sfn.list_executions(stateMachineArn=arn))[0] == "StateMachineTypeNotSupported"


def test_the_log_of_executions(lab: Lab) -> None:
    group = "/aws/vendedlogs/states/logged"
    destination = {"cloudWatchLogsLogGroup": {"logGroupArn": f"arn:aws:logs:us-east-1:123456789012:log-group:{group}:*"}}
    arn = machine(lab, {"A": PASS}, loggingConfiguration={"level": "ALL", "includeExecutionData": True, "destinations": [destination]})
    execution = run(lab, arn, {"a": 1})["executionArn"]
    entries = [json.loads(line) for line in lab.poll(lambda: lab.log_lines(group))]
    assert [entry["type"] for entry in entries] == ["ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded"]
    assert entries[1]["details"]["input"] == '{"a":1}'
    assert entries[0]["execution_arn"] == execution


def test_the_events_of_an_execution(lab: Lab) -> None:
    url, queue_arn = lab.queue()
    events, arn = lab.client("events"), machine(lab, {"A": {"Type": "Fail", "Error": "E", "Cause": "C"}})
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"], "detail": {"stateMachineArn": [arn]}}
    events.put_rule(Name="states", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="states", Targets=[{"Id": "q", "Arn": queue_arn, "InputPath": "$.detail"}])
    execution = run(lab, arn, {"a": 1})["executionArn"]
    details = {detail["status"]: detail for detail in (json.loads(lab.receive(url)["Body"]) for _ in range(2))}
    assert set(details) == {"RUNNING", "FAILED"}
    assert (details["FAILED"]["executionArn"], details["FAILED"]["error"], details["FAILED"]["cause"]) == (execution, "E", "C")
    assert details["RUNNING"]["input"] == '{"a": 1}'


def test_what_is_not_played_is_refused(lab: Lab) -> None:
    sfn = lab.client("stepfunctions")
    for call in (lambda: sfn.create_activity(name="a"), lambda: sfn.send_task_success(taskToken="t", output="{}")):
        assert "not supported by localcloud" in error_of(call)[1]


# kill -9


@pytest.fixture
def start(state_dir: Path, poll: Callable[..., Any]) -> Iterator[Callable[[], Process]]:
    processes: list[Process] = []

    def begin() -> Process:
        processes.append(Process(state_dir, poll))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # Nobody may be there to reap an orphan that was killed.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_after_kill_9_nothing_accepted_is_lost_and_nothing_is_left_running(
    start: Callable[[], Process], tmp_path: Path, poll: Callable[..., Any]
) -> None:
    first = start()
    lab = Lab(first)
    waiting = f"import os, pathlib, time\nhere = pathlib.Path({str(tmp_path)!r})\ndef handler(event, context):\n    (here / ('began' + event['n'])).write_text(str(os.getpid()))\n    while not (here / 'go').exists(): time.sleep(0.01)\n    (here / ('ended' + event['n'])).touch()"
    name = lab.function(waiting, Timeout=60)
    lab.allow(name, "events.amazonaws.com")
    done = machine(lab, {"A": PASS})
    finished = run(lab, done, {"kept": 1})["executionArn"]
    kept_history = history(lab, finished)
    sfn, events = lab.client("stepfunctions"), lab.client("events")
    stuck = sfn.start_execution(stateMachineArn=machine(lab, {"A": task(name)}), input='{"n": "1"}')["executionArn"]
    lab.invoke(name, {"n": "2"}, InvocationType="Event")
    events.put_rule(Name="r", EventPattern='{"source": ["app"]}')
    events.put_targets(
        Rule="r", Targets=[{"Id": "f", "Arn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}", "InputPath": "$.detail"}]
    )
    events.put_events(Entries=[{"Source": "app", "DetailType": "t", "Detail": '{"n": "3"}'}])
    poll(lambda: all((tmp_path / f"began{number}").exists() and (tmp_path / f"began{number}").read_text() for number in (1, 2, 3)))
    pids = [int((tmp_path / f"began{number}").read_text()) for number in (1, 2, 3)]
    first.kill()
    poll(lambda: not any(_alive(pid) for pid in pids))

    lab_after = Lab.__new__(Lab)
    lab_after.__dict__.update(lab.__dict__, region=start())
    sfn = lab_after.client("stepfunctions")
    assert history(lab_after, finished) == kept_history
    assert json.loads(sfn.describe_execution(executionArn=finished)["output"]) == {"kept": 1}
    description = sfn.describe_execution(executionArn=stuck)
    assert (description["status"], description["error"]) == ("FAILED", "States.Runtime")
    assert "localcloud ended while this execution ran" in description["cause"]
    assert [event["type"] for event in history(lab_after, stuck)] == ["ExecutionStarted", "ExecutionFailed"]
    (tmp_path / "go").touch()
    poll(lambda: (tmp_path / "ended2").exists() and (tmp_path / "ended3").exists())
    assert lab_after.client("events").list_targets_by_rule(Rule="r")["Targets"][0]["Id"] == "f"
    assert json.loads(run(lab_after, done, {"again": 1})["output"]) == {"again": 1}
