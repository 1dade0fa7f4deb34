"""Lambda as its users see it."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers_errors import error_of
from helpers_functions import Lab, attributes_of, zip_code
from localcloud.errors import ServiceError

ECHO = "def handler(event, context): return event"


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


# Invoking


def test_a_function_gets_its_event_and_gives_its_result(lab: Lab) -> None:
    name = lab.function("def handler(event, context): return {'sum': event['a'] + event['b'], 'é': [None, True, 1.5]}")
    response, result = lab.invoke(name, {"a": 1, "b": 2})
    assert result == {"sum": 3, "é": [None, True, 1.5]}
    assert (response["StatusCode"], response["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in response


def test_without_a_payload_the_event_is_an_empty_object(lab: Lab) -> None:
    assert lab.invoke(lab.function(ECHO))[1] == {}


def test_the_context_and_the_environment_are_awss(lab: Lab) -> None:
    code = """
import os, sys
def handler(event, context):
    names = ("aws_request_id", "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "log_group_name", "log_stream_name")
    return {
        "context": {name: getattr(context, name) for name in names},
        "remaining": context.get_remaining_time_in_millis(),
        "client": context.client_context.custom if context.client_context else None,
        "environment": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[0],
    }
"""
    name = lab.function(code, Timeout=7, MemorySize=256, Environment={"Variables": {"THRESHOLD": "0.93"}})
    client_context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    _, found = lab.invoke(name, {}, ClientContext=client_context)
    context, environment = found["context"], found["environment"]
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert context | {"aws_request_id": "", "log_stream_name": ""} == {
        "aws_request_id": "", "function_name": name, "function_version": "$LATEST", "invoked_function_arn": arn,
        "memory_limit_in_mb": "256", "log_group_name": f"/aws/lambda/{name}", "log_stream_name": "",
    }  # fmt: skip
    assert "[$LATEST]" in context["log_stream_name"]
    assert 5000 < found["remaining"] <= 7000
    assert found["client"] == {"k": "v"}
    assert environment["THRESHOLD"] == "0.93"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == name
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == f"/aws/lambda/{name}"
    assert environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.11"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["AWS_ENDPOINT_URL"] == lab.region.endpoint_url
    assert environment["LAMBDA_TASK_ROOT"] == found["cwd"] == found["path"]
    assert "HOME" not in environment


def test_a_function_sees_its_zip_and_the_runtimes_packages_only(lab: Lab) -> None:
    code = """
import importlib, boto3, botocore, jmespath, urllib3
def handler(event, context):
    found = {}
    for name in event:
        try:
            found[name] = importlib.import_module(name).__name__
        except ImportError as error:
            found[name] = str(error)
    return found
"""
    name = lab.function(code, Code={"ZipFile": zip_code(app=code, helper="", package__="", package__inner="")})
    found = lab.invoke(name, ["helper", "package.inner", "s3transfer", "localcloud", "numpy", "moto", "pytest"])[1]
    assert found == {
        "helper": "helper", "package.inner": "package.inner", "s3transfer": "s3transfer", "localcloud": "No module named 'localcloud'",
        "numpy": "No module named 'numpy'", "moto": "No module named 'moto'", "pytest": "No module named 'pytest'",
    }  # fmt: skip


def test_a_copy_of_a_runtimes_package_in_the_zip_comes_first(lab: Lab) -> None:
    code = "import boto3, jmespath\ndef handler(event, context): return [boto3.mark, jmespath.mark]"
    name = lab.function(code, Code={"ZipFile": zip_code(app=code, boto3__="mark = 'own'", jmespath="mark = 'own'")})
    assert lab.invoke(name)[1] == ["own", "own"]


def test_a_function_reaches_the_regions_services(lab: Lab) -> None:
    lab.client("s3").create_bucket(Bucket="photos")
    lab.client("s3").put_object(Bucket="photos", Key="k", Body=b"hello")
    code = """
import boto3
s3 = boto3.client("s3")
def handler(event, context): return s3.get_object(Bucket="photos", Key="k")["Body"].read().decode()
"""
    assert lab.invoke(lab.function(code, Timeout=30))[1] == "hello"


def test_a_warm_worker_is_used_again(lab: Lab) -> None:
    name = lab.function(
        "import os\ncount = 0\ndef handler(event, context):\n    global count\n    count += 1\n    return [os.getpid(), count]"
    )
    (pid, first), (again, second) = lab.invoke(name)[1], lab.invoke(name)[1]
    assert (pid, first, second) == (again, 1, 2)


def test_invocations_at_once_have_workers_of_their_own(lab: Lab, tmp_path: Path) -> None:
    code = f"""
import os, pathlib, time
here = pathlib.Path({str(tmp_path)!r})
def handler(event, context):
    (here / str(os.getpid())).touch()
    while len(list(here.iterdir())) < 3:
        time.sleep(0.005)
    return os.getpid()
"""
    name = lab.function(code, Timeout=30)
    pids: list[int] = []
    threads = [
        threading.Thread(target=lambda: pids.append(json.loads(lab.cloud.services["lambda"].invoke_function(name, b"{}").payload)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pids)) == 3


# Failures of functions


def test_an_exception_is_unhandled_and_named_by_its_class(lab: Lab) -> None:
    code = """
class LowConfidenceError(Exception):
    pass

def check(value):
    raise LowConfidenceError(f"THRESHOLD_CONFIDENCE_NOT_MET {value}")

def handler(event, context):
    check(0.5)
"""
    response, error = lab.invoke(lab.function(code), {})
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert error["errorType"] == "LowConfidenceError"
    assert error["errorMessage"] == "THRESHOLD_CONFIDENCE_NOT_MET 0.5"
    assert error["requestId"]
    assert error["stackTrace"] == [
        '  File "/var/task/app.py", line 9, in handler\n    check(0.5)\n',
        '  File "/var/task/app.py", line 6, in check\n    raise LowConfidenceError(f"THRESHOLD_CONFIDENCE_NOT_MET {value}")\n',
    ]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("import nothing_like_it", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nothing_like_it'"),
        ("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': "),
        ("def other(event, context): pass", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("raise KeyError('x')", "KeyError", "'x'"),
        ("def handler(e, c): return {'image': b'bytes'}", "Runtime.MarshalError", "Unable to marshal response: Object of type bytes is not JSON serializable"),
        ("def handler(e, c): return {1, 2}", "Runtime.MarshalError", "Unable to marshal response: Object of type set is not JSON serializable"),
        ("import os\ndef handler(e, c): os._exit(3)", "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"),
        ("import sys\ndef handler(e, c): sys.exit(0)", "Runtime.ExitError", "Error: Runtime exited without providing a reason"),
        ("def handler(e, c): exit(5)", "Runtime.ExitError", "Error: Runtime exited with error: exit status 5"),
        ("import os, signal\ndef handler(e, c): os.kill(os.getpid(), signal.SIGKILL)", "Runtime.ExitError", "Error: Runtime exited with error: signal: killed"),
        ("def handler(e, c):\n    while True: pass", "Sandbox.Timedout", "Error: Task timed out after 1.00 seconds"),
        ("import time\ntime.sleep(0)\nimport os\nos._exit(1)", "Runtime.ExitError", "Error: Runtime exited with error: exit status 1"),
    ],
)  # fmt: skip
def test_how_a_function_fails(lab: Lab, code: str, kind: str, message: str) -> None:
    name = lab.function(code, Timeout=1)
    response, error = lab.invoke(name, {})
    assert response["FunctionError"] == "Unhandled"
    assert error["errorType"] == kind
    assert message in error["errorMessage"]


@pytest.mark.parametrize("handler", ["nodot", "sys.exit"])
def test_a_malformed_handler(lab: Lab, handler: str) -> None:
    kind = {"nodot": "Runtime.MalformedHandlerName", "sys.exit": "Runtime.BuiltInModuleConflict"}[handler]
    assert lab.invoke(lab.function(ECHO, Handler=handler), {})[1]["errorType"] == kind


def test_after_a_crash_and_after_a_timeout_the_next_invocation_has_a_new_worker(lab: Lab) -> None:
    code = "import os\ndef handler(event, context):\n    if event.get('exit'): os._exit(1)\n    while event.get('spin'): pass\n    return os.getpid()"
    name = lab.function(code, Timeout=1)
    first = lab.invoke(name, {})[1]
    assert lab.invoke(name, {"exit": 1})[1]["errorType"] == "Runtime.ExitError"
    second = lab.invoke(name, {})[1]
    assert lab.invoke(name, {"spin": 1})[1]["errorType"] == "Sandbox.Timedout"
    assert len({first, second, lab.invoke(name, {})[1]}) == 3


def test_a_timed_out_functions_children_end_with_it(lab: Lab, tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
def handler(event, context):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
    time.sleep(600)
"""
    lab.invoke(lab.function(code, Timeout=1), {})
    pid = (tmp_path / "pid").read_text()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    lab.poll(gone)


def test_a_result_that_is_too_large(lab: Lab) -> None:
    error = lab.invoke(lab.function("def handler(event, context): return 'x' * 6291557"))[1]
    assert error["errorType"] == "Function.ResponseSizeTooLarge"


# Requests that are refused


def test_requests_that_are_refused(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    assert error_of(lambda: client.invoke(FunctionName="none")) == (
        "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:123456789012:function:none",
    )  # fmt: skip
    assert error_of(lambda: client.invoke(FunctionName=name, Payload=b"{"))[0] == "InvalidRequestContentException"
    assert error_of(lambda: client.invoke(FunctionName=name, Qualifier="7"))[0] == "ResourceNotFoundException"
    large = json.dumps("x" * 1_048_576).encode()
    assert error_of(lambda: client.invoke(FunctionName=name, InvocationType="Event", Payload=large))[0] == "RequestTooLargeException"
    assert lab.invoke(name, "x" * 1_048_576)[1] == "x" * 1_048_576
    assert lab.invoke(name, {}, InvocationType="DryRun")[0]["StatusCode"] == 204


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Runtime": "nodejs22.x"}, "not supported by localcloud"),
        ({"Role": "arn:aws:iam::123456789012:role/none"}, "The role defined for the function cannot be assumed by Lambda."),
        ({"Code": {"S3Bucket": "none", "S3Key": "k"}}, "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"),
        ({"Code": {"ZipFile": b"x"}}, "Could not unzip uploaded file."),
        ({"Layers": ["arn:aws:lambda:us-east-1:017000801446:layer:AWSLambdaPowertoolsPythonV3-python311-x86_64:7"]}, "not supported by localcloud"),
        ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:none:1"]}, "does not exist"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"BIG": "x" * 5000}}}, "exceeded the 4KB limit"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []}}, "not supported by localcloud"),
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, "not supported by localcloud"),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::x"}}, "target Arn is invalid"),
        ({"LoggingConfig": {"LogFormat": "Text", "SystemLogLevel": "DEBUG"}}, "the LogFormat must be JSON"),
    ],
)  # fmt: skip
def test_functions_that_are_refused(lab: Lab, changes: dict[str, Any], message: str) -> None:
    code, text = error_of(lambda: lab.function(ECHO, **changes))
    assert code == "InvalidParameterValueException"
    assert message in text


@pytest.mark.parametrize("changes", [{"Timeout": 901}, {"MemorySize": 10_241}, {"FunctionName": "with space"}])
def test_values_outside_the_models_limits_are_refused(lab: Lab, changes: dict[str, Any]) -> None:
    assert error_of(lambda: lab.function(ECHO, **changes))[0] == "ValidationException"


# Code and configuration


def test_a_zip_from_s3_is_content_later_objects_do_not_reach_the_function(lab: Lab) -> None:
    s3, client = lab.client("s3"), lab.client("lambda")
    s3.create_bucket(Bucket="code")
    s3.put_object(Bucket="code", Key="f.zip", Body=zip_code(app="def handler(e, c): return 'old'"))
    name = lab.function("", Code={"S3Bucket": "code", "S3Key": "f.zip"})
    s3.put_object(Bucket="code", Key="f.zip", Body=zip_code(app="def handler(e, c): return 'new'"))
    assert lab.invoke(name)[1] == "old"
    lab.client("lambda").update_function_configuration(FunctionName=name, Description="changed")
    assert lab.invoke(name)[1] == "old"
    client.update_function_code(FunctionName=name, S3Bucket="code", S3Key="f.zip")
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert lab.invoke(name)[1] == "new"


def test_get_function_gives_the_code_back(lab: Lab) -> None:
    name = lab.function(ECHO, Tags={"project": "scones"})
    found = lab.client("lambda").get_function(FunctionName=name)
    with urllib.request.urlopen(found["Code"]["Location"]) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert archive.read("app.py").decode() == ECHO
    assert found["Tags"] == {"project": "scones"}
    assert found["Configuration"]["State"] == "Active"
    assert found["Configuration"]["LastUpdateStatus"] == "Successful"


def test_a_changed_configuration_reaches_the_next_invocation(lab: Lab) -> None:
    name = lab.function("import os\ndef handler(event, context): return os.environ.get('MODE')")
    assert lab.invoke(name)[1] is None
    lab.client("lambda").update_function_configuration(
        FunctionName=name, Environment={"Variables": {"MODE": "1"}}, Timeout=9, Handler="app.handler"
    )
    assert lab.invoke(name)[1] == "1"
    found = lab.client("lambda").get_function_configuration(FunctionName=name)
    assert (found["Timeout"], found["MemorySize"]) == (9, 128)


def test_an_update_of_another_revision_is_refused(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    assert (
        error_of(lambda: client.update_function_configuration(FunctionName=name, RevisionId="old", Timeout=4))[0]
        == "PreconditionFailedException"
    )
    assert client.get_function_configuration(FunctionName=name)["Timeout"] == 3


def test_names_are_taken_once_listed_and_deleted(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    assert error_of(lambda: lab.function(ECHO, FunctionName=name)) == ("ResourceConflictException", f"Function already exist: {name}")
    listed = [
        found["FunctionName"]
        for page in client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
        for found in page["Functions"]
    ]
    assert name in listed
    assert len(listed) == len(set(listed))
    client.delete_function(FunctionName=name)
    assert error_of(lambda: client.get_function(FunctionName=name))[0] == "ResourceNotFoundException"
    assert error_of(lambda: client.invoke(FunctionName=name))[0] == "ResourceNotFoundException"


def test_versions_are_frozen_and_aliases_point_to_them(lab: Lab) -> None:
    client = lab.client("lambda")
    name = lab.function("def handler(event, context): return ['one', context.invoked_function_arn, context.function_version]", Publish=True)
    assert client.publish_version(FunctionName=name)["Version"] == "1"
    client.update_function_code(FunctionName=name, ZipFile=zip_code(app="def handler(event, context): return ['two']"))
    assert client.publish_version(FunctionName=name, Description="second")["Version"] == "2"
    arn = client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")["AliasArn"]
    assert lab.invoke(name, {}, Qualifier="1")[1] == ["one", f"{arn.rpartition(':')[0]}:1", "1"]
    assert lab.invoke(arn)[1] == ["one", arn, "1"]
    assert lab.invoke(name)[1] == ["two"]
    client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert lab.invoke(f"{name}:live")[1] == ["two"]
    assert [found["Version"] for found in client.list_versions_by_function(FunctionName=name)["Versions"]] == ["$LATEST", "1", "2"]
    assert error_of(lambda: client.delete_function(FunctionName=name, Qualifier="2"))[0] == "ResourceConflictException"
    client.delete_alias(FunctionName=name, Name="live")
    assert error_of(lambda: client.get_alias(FunctionName=name, Name="live"))[0] == "ResourceNotFoundException"
    assert error_of(lambda: client.create_alias(FunctionName=name, Name="x", FunctionVersion="9"))[0] == "ResourceNotFoundException"


def test_layers_are_on_the_path_after_the_zip(lab: Lab) -> None:
    client = lab.client("lambda")
    arns = [
        client.publish_layer_version(
            LayerName="helpers", Content={"ZipFile": zip_code(python__helper=f"value = {number}", python__only=f"value = {number}")}
        )["LayerVersionArn"]
        for number in (1, 2)
    ]
    assert [found["Version"] for found in client.list_layer_versions(LayerName="helpers")["LayerVersions"]] == [2, 1]
    code = "import helper, only\ndef handler(event, context): return [helper.value, only.value]"
    name = lab.function(code, Code={"ZipFile": zip_code(app=code, helper="value = 'zip'")}, Layers=[arns[1]])
    assert lab.invoke(name)[1] == ["zip", 2]
    client.update_function_configuration(FunctionName=name, Layers=[arns[0]])
    assert lab.invoke(name)[1] == ["zip", 1]
    client.delete_layer_version(LayerName="helpers", VersionNumber=1)
    assert error_of(lambda: client.get_layer_version_by_arn(Arn=arns[0]))[0] == "ResourceNotFoundException"
    assert lab.invoke(name)[1] == ["zip", 1]


def test_tags_and_concurrency(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    client.tag_resource(Resource=arn, Tags={"a": "1", "b": "2"})
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    # Asked inside the process: boto3 repeats a throttled request for seconds.
    with pytest.raises(ServiceError, match="Rate Exceeded"):
        lab.cloud.services["lambda"].invoke_function(name, b"{}")
    client.delete_function_concurrency(FunctionName=name)
    assert lab.invoke(name)[1] == {}


def test_the_resource_policy(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    assert error_of(lambda: client.get_policy(FunctionName=name))[0] == "ResourceNotFoundException"
    request = {
        "FunctionName": name, "StatementId": "rule", "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com",
        "SourceArn": "arn:aws:events:us-east-1:123456789012:rule/r", "SourceAccount": "123456789012",
    }  # fmt: skip
    added = json.loads(client.add_permission(**request)["Statement"])
    assert added == json.loads(client.get_policy(FunctionName=name)["Policy"])["Statement"][0]
    assert added["Condition"] == {"ArnLike": {"AWS:SourceArn": request["SourceArn"]}, "StringEquals": {"AWS:SourceAccount": "123456789012"}}
    assert error_of(lambda: client.add_permission(**request))[0] == "ResourceConflictException"
    service = lab.cloud.services["lambda"]
    assert service.may_invoke(name, "events.amazonaws.com", request["SourceArn"])
    assert not service.may_invoke(name, "events.amazonaws.com", request["SourceArn"] + "2")
    client.remove_permission(FunctionName=name, StatementId="rule")
    assert not service.may_invoke(name, "events.amazonaws.com", request["SourceArn"])
    assert error_of(lambda: client.remove_permission(FunctionName=name, StatementId="rule"))[0] == "ResourceNotFoundException"


def test_what_is_not_played_is_refused(lab: Lab) -> None:
    name = lab.function(ECHO)
    client = lab.client("lambda")
    code, message = error_of(lambda: client.create_function_url_config(FunctionName=name, AuthType="NONE"))
    assert "not supported by localcloud" in message
    assert code == "ValidationException"
    assert (
        "not supported by localcloud"
        in error_of(lambda: client.create_event_source_mapping(FunctionName=name, EventSourceArn="arn:aws:sqs:us-east-1:1:q"))[1]
    )


# Logs


def test_the_log_of_an_invocation(lab: Lab) -> None:
    code = """
import logging, sys
logger = logging.getLogger()
logger.setLevel("INFO")
def handler(event, context):
    print("printed\\ntwice")
    print("to stderr", file=sys.stderr)
    logger.info("logged\\nin two lines")
    if event.get("fail"):
        raise ValueError("no")
"""
    name = lab.function(code)
    response, _ = lab.invoke(name, {"fail": True}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"]).decode()
    lines = lab.poll(lambda: lines if len(lines := lab.log_lines(f"/aws/lambda/{name}")) == 8 else None)
    assert lines[0].startswith("START RequestId: ")
    assert lines[1:4] == ["printed", "twice", "to stderr"]
    assert lines[4].startswith("[INFO]\t")
    assert lines[4].endswith("\tlogged\nin two lines")
    assert (
        lines[5]
        == '[ERROR] ValueError: no\nTraceback (most recent call last):\n  File "/var/task/app.py", line 10, in handler\n    raise ValueError("no")'
    )
    assert lines[6].startswith("END RequestId: ")
    assert lines[7].startswith("REPORT RequestId: ")
    assert "Status: error" in lines[7]
    assert tail == "".join(line + "\n" for line in lines)


def test_json_logs_in_a_group_of_their_own(lab: Lab) -> None:
    code = "import logging\ndef handler(event, context):\n    logging.warning('careful')\n    logging.info('hidden')"
    name = lab.function(code, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "LogGroup": "/own/group"})
    lab.invoke(name)
    lines = lab.poll(lambda: lines if len(lines := lab.log_lines("/own/group")) >= 3 else None)
    start, warning, report = (json.loads(line) for line in lines)
    assert (start["type"], report["type"]) == ("platform.start", "platform.report")
    assert (warning["level"], warning["message"], warning["requestId"]) == ("WARNING", "careful", start["record"]["requestId"])


# Asynchronous invocations


def flaky(path: Path, failures: int) -> str:
    return f"""
import pathlib
counter = pathlib.Path({str(path)!r})
def handler(event, context):
    with counter.open("a") as file:
        file.write(context.aws_request_id + "\\n")
    if len(counter.read_text().splitlines()) <= {failures}:
        raise RuntimeError("attempt failed")
    return {{"done": event}}
"""


def test_an_event_is_accepted_and_handled_later(lab: Lab, tmp_path: Path) -> None:
    response, payload = lab.invoke(lab.function(flaky(tmp_path / "n", 0)), {"a": 1}, InvocationType="Event")
    assert (response["StatusCode"], payload) == (202, None)
    lab.poll(lambda: (tmp_path / "n").exists())


def test_an_event_that_fails_is_tried_twice_more_under_the_same_request_id(lab: Lab, tmp_path: Path) -> None:
    url, arn = lab.queue()
    name = lab.function(flaky(tmp_path / "n", 2))
    lab.client("lambda").put_function_event_invoke_config(FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": arn}})
    lab.invoke(name, {"a": 1}, InvocationType="Event")
    record = json.loads(lab.receive(url)["Body"])
    attempts = (tmp_path / "n").read_text().splitlines()
    assert len(attempts) == 3
    assert set(attempts) == {record["requestContext"]["requestId"]}
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert (record["requestPayload"], record["responsePayload"]) == ({"a": 1}, {"done": {"a": 1}})


def test_an_event_that_always_fails_goes_to_the_dead_letter_queue_and_the_destination(lab: Lab, tmp_path: Path) -> None:
    (dlq_url, dlq_arn), (url, arn) = lab.queue(), lab.queue()
    name = lab.function(flaky(tmp_path / "n", 99), DeadLetterConfig={"TargetArn": dlq_arn})
    lab.client("lambda").put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    lab.invoke(name, {"a": 1}, InvocationType="Event")
    dead = lab.receive(dlq_url)
    record = json.loads(lab.receive(url)["Body"])
    assert json.loads(dead["Body"]) == {"a": 1}
    assert attributes_of(dead) == {"RequestID": record["requestContext"]["requestId"], "ErrorCode": "200", "ErrorMessage": "attempt failed"}
    assert record["version"] == "1.0"
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["functionArn"].endswith(f":function:{name}:$LATEST")
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorType"] == "RuntimeError"
    assert len((tmp_path / "n").read_text().splitlines()) == 2


def test_a_function_as_a_destination_gets_the_record(lab: Lab, tmp_path: Path) -> None:
    target = lab.function(f"import json\ndef handler(event, context): open({str(tmp_path / 'record')!r}, 'w').write(json.dumps(event))")
    name = lab.function(ECHO)
    target_arn = lab.client("lambda").get_function_configuration(FunctionName=target)["FunctionArn"]
    lab.client("lambda").put_function_event_invoke_config(FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": target_arn}})
    lab.invoke(name, {"x": 1}, InvocationType="Event")
    lab.poll(lambda: (tmp_path / "record").exists() and (tmp_path / "record").read_text())
    assert json.loads((tmp_path / "record").read_text())["responsePayload"] == {"x": 1}


def test_the_event_invoke_configuration(lab: Lab) -> None:
    client, name = lab.client("lambda"), lab.function(ECHO)
    assert error_of(lambda: client.get_function_event_invoke_config(FunctionName=name))[0] == "ResourceNotFoundException"
    client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0, MaximumEventAgeInSeconds=60)
    client.update_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    found = client.get_function_event_invoke_config(FunctionName=name)
    assert (found["MaximumRetryAttempts"], found["MaximumEventAgeInSeconds"]) == (1, 60)
    destination = {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}}
    assert (
        "not supported by localcloud"
        in error_of(lambda: client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=destination))[1]
    )
    client.delete_function_event_invoke_config(FunctionName=name)
    assert client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"] == []


def test_a_throttled_event_waits_for_its_turn(lab: Lab, tmp_path: Path) -> None:
    client, name = lab.client("lambda"), lab.function(flaky(tmp_path / "n", 0))
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    lab.invoke(name, {}, InvocationType="Event")
    client.delete_function_concurrency(FunctionName=name)
    lab.poll(lambda: (tmp_path / "n").exists())
