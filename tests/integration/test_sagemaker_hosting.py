"""Models, endpoint configurations and endpoints that really serve."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from helpers_sagemaker import BUCKET, IMAGE, Lab, make_lab, tar_gz
from localcloud.sagemaker import runtime

#: Answers with what it was asked and what it was made of.
ECHO = """
import json, os
class Refused(Exception):
    def __init__(self, status_code, message):
        self.status_code, self.message = status_code, message
def model_fn(model_dir):
    with open(os.path.join(model_dir, 'name')) as file:
        return file.read()
def transform_fn(model, body, content_type, accept):
    if content_type == 'text/refused':
        raise Refused(415, 'send something else')
    if content_type == 'text/crash':
        os._exit(3)
    if content_type == 'text/die':
        import socket, time
        for fd in range(3, 100):
            try:
                connection = socket.socket(fileno=os.dup(fd))
                connection.getpeername()
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        time.sleep(1)
        os._exit(3)
    if content_type == 'text/wait':
        import time
        time.sleep(600)
    return json.dumps({'model': model, 'size': len(body), 'type': content_type, 'setting': os.environ.get('SETTING')}), 'application/json'
"""
BROKEN = "def model_fn(model_dir): raise RuntimeError('weights do not fit')\n"


@pytest.fixture(scope="module")
def lab(region: Any) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        yield make_lab(region, patch)


@pytest.fixture(scope="module")
def echo(lab: Lab) -> str:
    return lab.model(ECHO, environment={"SETTING": "/opt/ml/model"}, name=b"one")


@pytest.fixture(scope="module")
def endpoint(lab: Lab, echo: str) -> str:
    return lab.endpoint(echo)


def error_of(call: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    response: dict[str, Any] = caught.value.response
    return response


def message_of(call: Callable[[], Any]) -> str:
    error = error_of(call)["Error"]
    assert error["Code"] in ("ValidationException", "ValidationError")
    message: str = error["Message"]
    return message


def pids(lab: Lab, endpoint: str) -> list[int]:
    found = []
    for variant in lab.sm.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]:
        with lab.service.fleet.routed(endpoint, variant["VariantName"]) as live:
            found.append(live.server.pid)
    return found


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/{name}"


# Invoking.


def test_an_endpoint_answers_with_what_the_model_says(lab: Lab, endpoint: str) -> None:
    answer = lab.runtime.invoke_endpoint(
        EndpointName=endpoint, Body=b"\x89PNG\r\n\x00\xff", ContentType="image/png", Accept="application/json"
    )
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "v0")
    body = answer["Body"].read()
    assert b'"model": "one", "size": 8, "type": "image/png"' in body
    # /opt/ml in a container's environment is the sandbox's folder.
    assert b'"setting": "/opt/ml' not in body
    assert b'/ml/model"' in body


def test_a_refusal_of_the_model_reaches_the_caller_with_its_status(lab: Lab, endpoint: str, poll: Callable[..., Any]) -> None:
    response = error_of(lambda: lab.ask(endpoint, ContentType="text/refused"))
    assert response["Error"]["Code"] == "ModelError"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 415
    assert response["OriginalMessage"].splitlines()[0] == "send something else"
    assert response["LogStreamArn"] == f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/{endpoint}"
    message = response["Error"]["Message"]
    assert message.startswith('Received client error (415) from primary with message "send something else')
    assert message.endswith(
        "See https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#logEventViewer:group=/aws/sagemaker/Endpoints/"
        f"{endpoint} in account 123456789012 for more information."
    )
    poll(lambda: any("send something else" in line for line in lab.lines(f"/aws/sagemaker/Endpoints/{endpoint}", "v0/i-")))


def test_an_unknown_endpoint_or_variant_is_said_so(lab: Lab, endpoint: str) -> None:
    response = error_of(lambda: lab.ask("scones"))
    assert response["Error"] == {"Code": "ValidationError", "Message": "Endpoint scones of account 123456789012 not found."}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "Variant v9 not found" in message_of(lambda: lab.ask(endpoint, TargetVariant="v9"))


def test_requests_have_a_largest_size(lab: Lab, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MAX_BYTES", 1000)
    assert lab.ask(endpoint, b"x" * 1000)["size"] == 1000
    response = error_of(lambda: lab.ask(endpoint, b"x" * 1001))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert response["Error"]["Message"] == "HTTP content length exceeded 1000 bytes."


def test_big_requests_arrive_whole(lab: Lab, endpoint: str) -> None:
    assert lab.ask(endpoint, os.urandom(7_000_000))["size"] == 7_000_000


def test_custom_attributes_go_to_the_model_and_back(lab: Lab) -> None:
    script = (
        "HEADER = 'X-Amzn-SageMaker-Custom-Attributes'\n"
        "def model_fn(model_dir, context): return None\n"
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    context.set_response_header(0, HEADER, 'back:' + context.get_request_header(0, HEADER))\n"
        "    return ''\n"
    )
    name = lab.endpoint(lab.model(script))
    assert lab.runtime.invoke_endpoint(EndpointName=name, Body=b"", CustomAttributes="trace=1")["CustomAttributes"] == "back:trace=1"


def test_many_callers_at_once_are_all_answered(lab: Lab, endpoint: str) -> None:
    sizes: list[int] = []

    def call(index: int) -> None:
        sizes.extend(lab.ask(endpoint, b"x" * (index * 50 + number))["size"] for number in range(20))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sizes) == sorted(index * 50 + number for index in range(8) for number in range(20))


def test_a_model_that_is_too_slow_is_given_up_and_started_anew(lab: Lab, echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = lab.endpoint(echo)
    monkeypatch.setattr(runtime, "TIMEOUT_SECONDS", 0.3)
    response = error_of(lambda: lab.ask(name, ContentType="text/wait"))
    assert response["OriginalStatusCode"] == 0
    assert response["Error"]["Message"].startswith('Received server error (0) from primary with message "Your invocation timed out')
    monkeypatch.setattr(runtime, "TIMEOUT_SECONDS", 60.0)
    assert lab.ask(name)["model"] == "one"


def test_a_crashed_server_is_started_again_and_requests_wait_for_it(lab: Lab, echo: str, poll: Callable[..., Any]) -> None:
    name = lab.endpoint(echo)
    [before] = pids(lab, name)
    assert error_of(lambda: lab.ask(name, ContentType="text/crash"))["OriginalStatusCode"] == 500
    assert lab.ask(name)["model"] == "one"
    [after] = pids(lab, name)
    os.kill(after, signal.SIGKILL)
    poll(lambda: pids(lab, name) not in ([after], [None]))
    assert lab.ask(name)["model"] == "one"
    assert before != after
    assert lab.sm.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"


def test_a_server_that_is_about_to_end_gets_no_more_requests(lab: Lab, echo: str) -> None:
    name = lab.endpoint(echo)
    assert error_of(lambda: lab.ask(name, ContentType="text/die"))["OriginalMessage"] == "Worker died."
    assert lab.ask(name)["model"] == "one"


# Deploying.


def test_an_endpoint_tells_what_it_serves(lab: Lab, echo: str) -> None:
    config = lab.config(echo)
    name = lab.name("Described")
    created = lab.sm.create_endpoint(EndpointName=name, EndpointConfigName=config, Tags=[{"Key": "a", "Value": "b"}])["EndpointArn"]
    assert created == arn("endpoint", name.lower())
    described = lab.settled(name)
    assert (described["EndpointStatus"], described["EndpointConfigName"], described["EndpointArn"]) == ("InService", config, created)
    assert "FailureReason" not in described
    [variant] = described["ProductionVariants"]
    assert (variant["VariantName"], variant["CurrentWeight"], variant["CurrentInstanceCount"]) == ("v0", 1.0, 1)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    details = lab.details("SageMaker Endpoint State Change", EndpointName=name)
    assert [detail["EndpointStatus"] for detail in details] == ["CREATING", "IN_SERVICE"]
    assert details[1]["Tags"] == {"a": "b"}
    assert isinstance(details[1]["CreationTime"], int)
    listed = lab.sm.list_endpoints(NameContains=name, StatusEquals="InService")["Endpoints"]
    assert [item["EndpointName"] for item in listed] == [name]
    assert message_of(lambda: lab.sm.create_endpoint(EndpointName=name, EndpointConfigName=config)) == (
        f'Cannot create already existing endpoint "{created}".'
    )
    lab.sm.delete_endpoint(EndpointName=name)
    assert message_of(lambda: lab.sm.describe_endpoint(EndpointName=name)) == f'Could not find endpoint "{created}".'
    assert lab.details("SageMaker Endpoint State Change", EndpointName=name)[-1]["EndpointStatus"] == "DELETING"


def test_deleting_an_endpoint_ends_its_server_and_removes_its_files(lab: Lab, echo: str) -> None:
    before = set(lab.service.jobs.workshop.folder.iterdir())
    name = lab.endpoint(echo)
    [pid] = pids(lab, name)
    lab.sm.delete_endpoint(EndpointName=name)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert set(lab.service.jobs.workshop.folder.iterdir()) == before


def test_an_update_serves_the_new_model_and_ends_the_old_server(lab: Lab, echo: str, poll: Callable[..., Any]) -> None:
    name = lab.endpoint(echo)
    [old] = pids(lab, name)
    config = lab.config(lab.model(ECHO, name=b"two"))
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=config)
    # The old server answers all the while.
    assert lab.ask(name)["model"] in ("one", "two")
    assert lab.settled(name)["EndpointConfigName"] == config
    assert lab.ask(name)["model"] == "two"
    poll(lambda: not Path(f"/proc/{old}").exists() if Path("/proc").exists() else pids(lab, name) != [old])
    statuses = [detail["EndpointStatus"] for detail in lab.details("SageMaker Endpoint State Change", EndpointName=name)]
    assert statuses == ["CREATING", "IN_SERVICE", "UPDATING", "IN_SERVICE"]


def test_a_failed_update_leaves_what_served_serving_and_says_why(lab: Lab, echo: str) -> None:
    name = lab.endpoint(echo)
    config = lab.sm.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    served = pids(lab, name)
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=lab.config(lab.model(BROKEN)))
    described = lab.settled(name)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", config)
    assert described["FailureReason"] == (
        "The primary container for production variant v0 did not pass the ping health check. Please check CloudWatch logs for this endpoint. "
        "Its last line is: RuntimeError: weights do not fit"
    )
    assert lab.ask(name)["model"] == "one"
    assert pids(lab, name) == served


def test_a_request_in_flight_is_answered_by_the_server_it_reached(lab: Lab, poll: Callable[..., Any], tmp_path: Path) -> None:
    flag, started = tmp_path / "go", tmp_path / "started"
    slow = (
        "import pathlib, time\n"
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept):\n"
        f"    pathlib.Path({str(started)!r}).touch()\n"
        f"    while not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.01)\n"
        "    return '\"slow\"'\n"
    )
    name = lab.endpoint(lab.model(slow))
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(lab.ask(name)))
    caller.start()
    poll(started.exists)
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=lab.config(lab.model(ECHO, name=b"new")))
    assert lab.settled(name)["EndpointStatus"] == "InService"
    assert lab.ask(name)["model"] == "new"
    flag.touch()
    caller.join()
    assert answers == ["slow"]


def test_an_alarm_rolls_a_deployment_back(lab: Lab, echo: str) -> None:
    cloudwatch = lab.region.client("cloudwatch")
    for alarm in ("quiet", "loud"):
        cloudwatch.put_metric_alarm(
            AlarmName=alarm,
            MetricName="m",
            Namespace="n",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )
    cloudwatch.set_alarm_state(AlarmName="loud", StateValue="ALARM", StateReason="test")
    name = lab.endpoint(echo)
    config = lab.config(lab.model(ECHO, name=b"two"))
    for alarm, model in (("loud", "one"), ("quiet", "two")):
        deployment = {
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60}},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
        }
        lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig=deployment)
        described = lab.settled(name)
        assert lab.ask(name)["model"] == model
        assert ("alarm loud" in described.get("FailureReason", "")) is (alarm == "loud")
        assert described["LastDeploymentConfig"] == deployment


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {"code/inference.py": BROKEN.encode()},
            "did not pass the ping health check. Please check CloudWatch logs for this endpoint. Its last line is: ",
        ),
        ({"weights": b"x"}, "No module named 'inference'"),
        (
            {"code/inference.py": ECHO.encode(), "code/requirements.txt": b"no-such-package>=1\n"},
            "requirements.txt asks for no-such-package>=1",
        ),
        ({"code/inference.py": b"def model_fn(d): open('/opt/ml/model/x')\n"}, "The code uses the path /opt/ml/model/x itself"),
        (None, "Failed to extract model data archive"),
    ],
)
def test_an_endpoint_that_cannot_come_up_fails_and_says_why(lab: Lab, files: dict[str, bytes] | None, reason: str) -> None:
    key = f"{lab.name('bad')}.tar.gz"
    data = lab.put(key, b"not an archive" if files is None else tar_gz(files))
    model, name = lab.name("model"), lab.name("endpoint")
    lab.sm.create_model(ModelName=model, ExecutionRoleArn=lab.role, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": data})
    lab.sm.create_endpoint(EndpointName=name, EndpointConfigName=lab.config(model))
    described = lab.settled(name)
    assert described["EndpointStatus"] == "Failed"
    assert reason in described["FailureReason"]
    assert "not found" in message_of(lambda: lab.ask(name))
    assert "delete it and create it again" in message_of(
        lambda: lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=lab.config(model))
    )
    lab.sm.delete_endpoint(EndpointName=name)


def test_variants_share_the_traffic_by_weight(lab: Lab, echo: str) -> None:
    name = lab.endpoint(echo, lab.model(ECHO, name=b"two"))
    assert {lab.ask(name, TargetVariant=variant)["model"] for variant in ("v0", "v1")} == {"one", "two"}
    lab.sm.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "v0", "DesiredWeight": 0}, {"VariantName": "v1", "DesiredInstanceCount": 3}],
    )
    assert {lab.ask(name)["model"] for _ in range(20)} == {"two"}
    variants = lab.sm.describe_endpoint(EndpointName=name)["ProductionVariants"]
    assert [(variant["CurrentWeight"], variant["CurrentInstanceCount"]) for variant in variants] == [(0.0, 1), (1.0, 3)]
    retained = lab.config(echo, lab.model(ECHO, name=b"three"))
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=retained, RetainAllVariantProperties=True)
    assert [variant["CurrentWeight"] for variant in lab.settled(name)["ProductionVariants"]] == [0.0, 1.0]
    unknown = [{"VariantName": "v7", "DesiredWeight": 1.0}]
    assert "v7" in message_of(lambda: lab.sm.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=unknown))


def test_a_serverless_endpoint_serves_as_well(lab: Lab, echo: str) -> None:
    config, name = lab.name("config"), lab.name("endpoint")
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    lab.sm.create_endpoint_config(
        EndpointConfigName=config, ProductionVariants=[{"VariantName": "v0", "ModelName": echo, "ServerlessConfig": serverless}]
    )
    lab.sm.create_endpoint(EndpointName=name, EndpointConfigName=config)
    [variant] = lab.settled(name)["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == serverless
    assert lab.ask(name)["model"] == "one"
    assert error_of(lambda: lab.ask(name, b"x" * (4 * 1024 * 1024 + 1)))["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_endpoint_outlives_its_model_and_configuration(lab: Lab) -> None:
    model = lab.model(ECHO, name=b"gone")
    name = lab.endpoint(model)
    lab.sm.delete_endpoint_config(EndpointConfigName=lab.sm.describe_endpoint(EndpointName=name)["EndpointConfigName"])
    lab.sm.delete_model(ModelName=model)
    assert lab.ask(name)["model"] == "gone"
    assert lab.sm.describe_endpoint(EndpointName=name)["ProductionVariants"][0]["DeployedImages"][0]["SpecifiedImage"] == IMAGE


# Models and configurations.


def test_a_model_of_a_package_serves_the_packages_data(lab: Lab) -> None:
    group, model = lab.name("group"), lab.name("model")
    lab.sm.create_model_package_group(ModelPackageGroupName=group)
    data = lab.put("package/model.tar.gz", tar_gz({"code/inference.py": ECHO.encode(), "name": b"package"}))
    package = lab.sm.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": data, "Environment": {"SETTING": "package"}}],
            "SupportedContentTypes": ["a/b"],
            "SupportedResponseMIMETypes": ["a/b"],
        },
    )["ModelPackageArn"]
    lab.sm.create_model(ModelName=model, ExecutionRoleArn=lab.role, Containers=[{"ModelPackageName": package}])
    assert lab.sm.describe_model(ModelName=model)["Containers"] == [{"ModelPackageName": package}]
    answer = lab.ask(lab.endpoint(model))
    assert (answer["model"], answer["setting"]) == ("package", "package")


def test_code_can_come_from_an_archive_of_its_own(lab: Lab) -> None:
    code = lab.put("code/sourcedir.tar.gz", tar_gz({"serve.py": ECHO.encode()}))
    data = lab.put("data-only/model.tar.gz", tar_gz({"name": b"separate"}))
    model = lab.name("model")
    environment = {"SAGEMAKER_PROGRAM": "serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": code}
    container = {"Image": IMAGE, "ModelDataUrl": data, "Environment": environment}
    lab.sm.create_model(ModelName=model, ExecutionRoleArn=lab.role, PrimaryContainer=container)
    assert lab.ask(lab.endpoint(model))["model"] == "separate"


def test_an_uncompressed_model_is_served_from_its_prefix(lab: Lab) -> None:
    lab.put("plain/code/inference.py", ECHO)
    lab.put("plain/name", "plain")
    model = lab.name("model")
    source = {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    lab.sm.create_model(ModelName=model, ExecutionRoleArn=lab.role, PrimaryContainer={"Image": IMAGE, "ModelDataSource": source})
    assert lab.ask(lab.endpoint(model))["model"] == "plain"


def test_models_and_configurations_are_described_listed_and_deleted(lab: Lab) -> None:
    model = lab.model(ECHO, name=b"x")
    config = lab.config(model)
    assert lab.sm.describe_model(ModelName=model)["ModelArn"] == arn("model", model)
    assert lab.sm.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]["InitialVariantWeight"] == 1.0
    assert [item["ModelName"] for item in lab.sm.list_models(NameContains=model)["Models"]] == [model]
    assert [item["EndpointConfigName"] for item in lab.sm.list_endpoint_configs(NameContains=config)["EndpointConfigs"]] == [config]
    container = {"Image": IMAGE}
    assert message_of(lambda: lab.sm.create_model(ModelName=model, ExecutionRoleArn=lab.role, PrimaryContainer=container)) == (
        f'Cannot create already existing model "{arn("model", model)}".'
    )
    variants = [{"VariantName": "v0", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}]
    assert message_of(lambda: lab.sm.create_endpoint_config(EndpointConfigName=config, ProductionVariants=variants)) == (
        f'Cannot create already existing endpoint configuration "{arn("endpoint-config", config)}".'
    )
    lab.sm.delete_endpoint_config(EndpointConfigName=config)
    lab.sm.delete_model(ModelName=model)
    assert message_of(lambda: lab.sm.describe_model(ModelName=model)) == f'Could not find model "{arn("model", model)}".'
    missing = f'Could not find endpoint configuration "{arn("endpoint-config", config)}".'
    assert message_of(lambda: lab.sm.describe_endpoint_config(EndpointConfigName=config)) == missing
    assert message_of(lambda: lab.sm.create_endpoint(EndpointName="x", EndpointConfigName=config)) == missing
    assert len(lab.details("SageMaker Model State Change", ModelName=model)) == 2
    assert len(lab.details("SageMaker Endpoint Config State Change", EndpointConfigName=config)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/none"}},
            f"Could not find model data at s3://{BUCKET}/none.",
        ),
        ({"ExecutionRoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role"),
        (
            {"PrimaryContainer": None, "Containers": [{"Image": IMAGE}, {"Image": IMAGE}]},
            "more than one container (an inference pipeline) is not supported",
        ),
        ({"PrimaryContainer": {"Image": IMAGE, "Mode": "MultiModel"}}, "Mode MultiModel is not supported"),
        ({"PrimaryContainer": {}}, "Exactly one of PrimaryContainer and Containers"),
        ({"PrimaryContainer": {"Environment": {"a": "b"}}}, "Either Image or ModelPackageName"),
        ({"EnableNetworkIsolation": True}, "EnableNetworkIsolation is not supported"),
    ],
)
def test_models_that_cannot_be_served_are_refused(lab: Lab, change: dict[str, Any], message: str) -> None:
    request = {"ModelName": "refused", "ExecutionRoleArn": lab.role, "PrimaryContainer": {"Image": IMAGE}} | change
    assert message in message_of(lambda: lab.sm.create_model(**{key: value for key, value in request.items() if value is not None}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"InstanceType": None, "InitialInstanceCount": None}, "either an InstanceType or a ServerlessConfig"),
        ({"InitialInstanceCount": None}, "InitialInstanceCount is required"),
        ({"ModelName": None}, "(inference components) is not supported"),
        ({"CoreDumpConfig": {"DestinationS3Uri": "s3://b/x"}}, "CoreDumpConfig is not supported"),
    ],
)
def test_variants_that_cannot_be_served_are_refused(lab: Lab, echo: str, change: dict[str, Any], message: str) -> None:
    variant = {"VariantName": "v0", "ModelName": echo, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | change
    given = {key: value for key, value in variant.items() if value is not None}
    assert message in message_of(lambda: lab.sm.create_endpoint_config(EndpointConfigName="refused", ProductionVariants=[given]))


def test_capturing_data_is_refused(lab: Lab, echo: str) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://b/x",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    variant = {"VariantName": "v0", "ModelName": echo, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    call = lambda: lab.sm.create_endpoint_config(EndpointConfigName="refused", ProductionVariants=[variant], DataCaptureConfig=capture)  # noqa: E731
    assert message_of(call).endswith("DataCaptureConfig with EnableCapture is not supported by localcloud")


@pytest.mark.parametrize("member", ["TargetModel", "InferenceComponentName", "EnableExplanations"])
def test_ways_of_invoking_that_are_not_there_are_refused(lab: Lab, endpoint: str, member: str) -> None:
    members: dict[str, Any] = {member: "x"}
    assert message_of(lambda: lab.ask(endpoint, **members)) == f"InvokeEndpoint: {member} is not supported by localcloud"


def test_streaming_is_refused(region: Any, endpoint: str) -> None:
    client = boto3.client("sagemaker-runtime", endpoint_url=region.endpoint_url, region_name="us-east-1")
    assert "not supported by localcloud" in message_of(lambda: client.invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=b""))
