"""The smoke test: what it tries, what it says when that fails, and that CloudFormation always gets an answer."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.response import StreamingBody

from helpers_aws import ACCOUNT, REGION, AwsError, LambdaContext, fake_client
from lambdas.common import clients
from lambdas.smoke_test import custom_resource, handler
from lambdas.smoke_test.errors import InvalidRequestError
from pipelines.sample_payload import sample_payload

STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/scones-inference/1"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:scones-classify:live"
PACKAGE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/scones-vehicle-classifier/3"
ANSWER = {"inferences": [0.9, 0.1], "labels": ["bicycle", "motorcycle"], "predicted_label": "bicycle", "confidence": 0.9}


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class World:
    """An account with a deployment that works; a test breaks it."""

    url: str
    answers: list[dict[str, Any]]
    refusals: list[int]
    stack_status: str = "UPDATE_IN_PROGRESS"
    payload_url: str | None = "s3://artifacts/code/1/sample_payload.tar.gz"
    payload: bytes = sample_payload().files["sample_payload.tar.gz"]
    endpoint: list[Any] = field(default_factory=lambda: [ANSWER])
    result: dict[str, Any] = field(default_factory=lambda: {**ANSWER, "decision": "accepted"})
    failure: dict[str, str] = field(default_factory=dict)
    polls: int = 1
    invocations: list[dict[str, Any]] = field(default_factory=list)
    executions: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def send(self, kind: str = "Update", remaining_ms: float = 300_000, **event: Any) -> dict[str, str]:
        """Has the function handle a request; the answer that CloudFormation got is the last of `answers`."""
        request = {
            "RequestType": kind,
            "ServiceToken": "arn",
            "ResponseURL": self.url,
            "StackId": STACK_ID,
            "RequestId": "a request",
            "LogicalResourceId": "SmokeTest",
            "ResourceType": "Custom::SmokeTest",
            "ResourceProperties": {"ModelPackageArn": PACKAGE, "EndpointName": "scones-production", "StateMachineArn": MACHINE},
        }
        if kind != "Create":
            request["PhysicalResourceId"] = "SmokeTest-of-1"
        answer: dict[str, str] = handler.lambda_handler(request | event, LambdaContext(remaining_ms=remaining_ms))
        return answer

    @property
    def reason(self) -> str:
        """Why the resource failed."""
        assert self.answers[-1]["Status"] == "FAILED"
        return str(self.answers[-1]["Reason"])

    def describe_stacks(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["StackName"] == STACK_ID
        if self.stack_status == "unreadable":
            raise AwsError("AccessDenied", "not allowed", 403)
        stack = {"StackName": "scones-inference", "StackStatus": self.stack_status, "CreationTime": "2021-02-24T16:00:00Z"}
        return {"Stacks": [stack]}

    def describe_model_package(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["ModelPackageName"] == PACKAGE
        return {"ModelPackageArn": PACKAGE} | ({"SamplePayloadUrl": self.payload_url} if self.payload_url else {})

    def get_object(self, params: dict[str, Any]) -> dict[str, Any]:
        assert f"s3://{params['Bucket']}/{params['Key']}" == self.payload_url
        return {"ContentLength": len(self.payload), "Body": StreamingBody(io.BytesIO(self.payload), len(self.payload))}

    def put_object(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["Bucket"] == "images"
        self.objects[params["Key"]] = params["Body"].read()
        return {}

    def invoke_endpoint(self, params: dict[str, Any]) -> dict[str, Any]:
        self.invocations.append(params)
        answer = self.endpoint[min(len(self.invocations), len(self.endpoint)) - 1]
        if isinstance(answer, AwsError):
            raise answer
        body = json.dumps(answer).encode()
        return {"Body": StreamingBody(io.BytesIO(body), len(body))}

    def start_execution(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["stateMachineArn"] == MACHINE
        self.executions.append(json.loads(params["input"]))
        return {"executionArn": "arn:execution", "startDate": 0}

    def describe_execution(self, params: dict[str, Any]) -> dict[str, Any]:
        self.polls -= 1
        if self.polls >= 0:
            return {"status": "RUNNING"}
        if self.failure:
            return {"status": "FAILED", **self.failure}
        request = self.executions[-1]
        return {"status": "SUCCEEDED", "output": json.dumps(self.result | {key: request[key] for key in ("s3_bucket", "s3_key")})}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    answers: list[dict[str, Any]] = []
    refusals: list[int] = []

    class Bucket(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = refusals.pop() if refusals else 200
            # The URL's signature covers an absent content type.
            if status == 200 and len(body) <= 4096 and not self.headers["Content-Type"]:
                answers.append(json.loads(body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    world = World(f"http://127.0.0.1:{server.server_address[1]}/answer?signed", answers, refusals)
    made = {
        (handler, "cloudformation"): fake_client("cloudformation", DescribeStacks=lambda params: world.describe_stacks(params)),
        (handler, "sagemaker"): fake_client("sagemaker", DescribeModelPackage=lambda params: world.describe_model_package(params)),
        (handler, "step_functions"): fake_client(
            "stepfunctions",
            StartExecution=lambda params: world.start_execution(params),
            DescribeExecution=lambda params: world.describe_execution(params),
        ),
        (clients, "s3"): fake_client(
            "s3", GetObject=lambda params: world.get_object(params), PutObject=lambda params: world.put_object(params)
        ),
        (clients, "sagemaker_runtime"): fake_client("sagemaker-runtime", InvokeEndpoint=lambda params: world.invoke_endpoint(params)),
    }
    for (module, name), client in made.items():
        monkeypatch.setattr(module, name, lambda client=client: client)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("IMAGE_BUCKET_NAME", "images")
    yield world
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_the_sample_payload_goes_through_the_endpoint_and_through_the_workflow(world: World, kind: str) -> None:
    world.polls = 3
    assert world.send(kind) == {"outcome": "passed", "reason": ""}
    (invocation,) = world.invocations
    assert (invocation["EndpointName"], invocation["ContentType"], invocation["Body"][:4]) == ("scones-production", "image/png", b"\x89PNG")
    (execution,) = world.executions
    assert (execution["s3_bucket"], execution["threshold"]) == ("images", 0.0)
    assert world.objects == {execution["s3_key"]: invocation["Body"]}
    assert world.answers == [
        {
            "Status": "SUCCESS",
            "Reason": "",
            "PhysicalResourceId": "SmokeTest-of-1",
            "StackId": STACK_ID,
            "RequestId": "a request",
            "LogicalResourceId": "SmokeTest",
        }
    ]


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        ({"payload_url": None}, "without a sample payload"),
        ({"payload_url": "https://elsewhere/payload"}, "SamplePayloadUrl: https://elsewhere/payload"),
        ({"payload": b"no archive"}, "cannot be read: not a gzip file"),
        ({"payload": archive()}, "holds no file"),
        ({"payload": archive(text=b"no image")}, "cannot be read: The object is not an image"),
        ({"endpoint": [{"inferences": [0.9, 0.3], "labels": ["a", "b"]}]}, "adds up to 1.2000"),
        ({"endpoint": [{"inferences": [1.0], "labels": ["a"]}]}, "two or more labels"),
        ({"endpoint": [{"inferences": [0.5, 0.5], "labels": ["a", "a"]}]}, "two or more labels"),
        ({"endpoint": [{"probabilities": [1.0]}]}, "not the agreed JSON"),
        ({"endpoint": [AwsError("ModelError", "failed", 424, OriginalStatusCode=500, OriginalMessage="NaN")]}, "3 times: The model container"),
        ({"endpoint": [AwsError("ModelError", "no", 424, OriginalStatusCode=400, OriginalMessage="no PNG")]}, "The model refused the image"),
        ({"failure": {"error": "ImageAccessDeniedError", "cause": "S3 denies reading it"}}, "ImageAccessDeniedError: S3 denies reading it"),
        ({"result": {**ANSWER, "decision": "needs_review"}}, "'needs_review'"),
        ({"result": {**ANSWER, "decision": "accepted", "labels": ["cat", "dog"]}}, "not the endpoint's ['bicycle', 'motorcycle']"),
        ({"result": {"decision": "accepted"}}, "lacks predicted_label, confidence, inferences, labels"),
        ({"result": {**ANSWER, "decision": "accepted", "inferences": [0.1, 0.1]}}, "adds up to 0.2000"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_the_reason_of_the_failed_resource(world: World, break_it: dict[str, Any], reason: str) -> None:
    for name, value in break_it.items():
        setattr(world, name, value)
    assert world.send()["outcome"] == "failed"
    assert reason in world.reason


def test_a_fault_that_passes_is_tried_again(world: World) -> None:
    world.endpoint = [AwsError("ThrottlingException", "slow down", 429), ANSWER]
    assert world.send()["outcome"] == "passed"
    assert len(world.invocations) == 2


def test_an_execution_that_does_not_end_fails_before_the_functions_time_is_over(world: World) -> None:
    world.polls = 10**9
    assert world.send(remaining_ms=handler.RESERVE_SECONDS * 1000)["outcome"] == "failed"
    assert "did not classify the version's sample payload in time" in world.reason


@pytest.mark.parametrize("status", ["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"])
def test_a_rollback_is_never_held_up(world: World, status: str) -> None:
    world.stack_status, world.endpoint = status, [AwsError("ModelError", "failed", 424, OriginalStatusCode=500)]
    assert world.send()["outcome"] == "skipped"
    assert world.answers[-1]["Status"] == "SUCCESS"
    assert not world.invocations


def test_a_stack_whose_status_cannot_be_read_is_tested(world: World) -> None:
    world.stack_status = "unreadable"
    assert world.send()["outcome"] == "passed"
    assert world.invocations


def test_deleting_does_nothing(world: World) -> None:
    world.payload_url = None
    assert world.send("Delete")["outcome"] == "skipped"
    assert (world.answers[-1]["Status"], world.executions) == ("SUCCESS", [])


def test_whatever_happens_cloudformation_gets_an_answer_that_fits(world: World) -> None:
    assert world.send(ResourceProperties={})["outcome"] == "failed"
    assert "The smoke test could not be made: KeyError: 'ModelPackageArn'" in world.reason
    world.failure = {"error": "UnexpectedError", "cause": "ß" * 5000}
    world.send()
    assert world.reason.startswith("The workflow failed")
    assert world.reason.endswith("(arn:execution)")


def test_an_answer_that_is_not_taken_is_sent_again(world: World) -> None:
    world.refusals += [503, 500]
    assert world.send()["outcome"] == "passed"
    assert len(world.answers) == 1


def test_an_answer_that_is_never_taken_has_lambda_try_again(world: World) -> None:
    world.refusals += [503] * custom_resource.ATTEMPTS
    with pytest.raises(OSError, match="503"):
        world.send()


@pytest.mark.parametrize("event", [{}, {"RequestType": "Recreate"}, {"RequestType": "Create"}, []])
def test_what_is_no_request_is_raised(world: World, event: Any) -> None:
    with pytest.raises(InvalidRequestError):
        handler.lambda_handler(event, LambdaContext())
    assert not world.answers
