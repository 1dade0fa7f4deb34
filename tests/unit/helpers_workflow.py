"""Runs `stepfunctions/classify.asl.json` in moto's interpreter, with the real functions. A program, because moto is patched here for good.

Reads cases as JSON from standard input, and writes a list of what became of each to the file that is its argument.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import boto3
from botocore.response import StreamingBody
from moto import mock_aws
from moto.awslambda.models import LambdaBackend
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl

from helpers_aws import AwsError, LambdaContext, fake_client
from lambdas.common import clients

ROOT = Path(__file__).parent.parent.parent
FUNCTIONS = {
    "SerializeImageDataFunctionArn": "serialize_image_data",
    "ImageClassificationFunctionArn": "image_classification",
    "FilterLowConfidenceInferencesFunctionArn": "filter_low_confidence_inferences",
}
ARN = "arn:aws:lambda:us-east-1:123456789012:function:"
PNG = b"\x89PNG\r\n\x1a\n"
OBJECTS = {
    "photo.png": PNG,
    "a photo+ü.png": PNG,
    "empty.png": b"",
    "text.png": b"this is no image",
    "large.png": PNG + bytes(300_000),
    "30mb.png": PNG + bytes(30_000_000),
}


class World:
    """What surrounds the functions: photos in S3, an endpoint, and the clock of the retries, as the current case has it."""

    def __init__(self) -> None:
        self.begin({})

    def begin(self, case: dict[str, Any]) -> None:
        """Starts a case."""
        self.case = case
        self.invocations = 0
        self.pauses: list[float] = []
        self.image_bytes = 0

    def sleep(self, seconds: float) -> None:
        """What the interpreter calls between two tries."""
        self.pauses.append(seconds)

    def get_object(self, params: dict[str, Any]) -> dict[str, Any]:
        """S3's answer."""
        if params["Key"] == "forbidden.png":
            raise AwsError("AccessDenied", "Access Denied", 403)
        if params["Key"] == "unreachable.png":
            raise AwsError("InternalError", "We encountered an internal error.", 500)
        if params["Key"] not in OBJECTS:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        data = OBJECTS[params["Key"]]
        return {"ContentLength": len(data), "Body": StreamingBody(io.BytesIO(data), len(data))}

    def invoke_endpoint(self, params: dict[str, Any]) -> dict[str, Any]:
        """The endpoint's answer."""
        self.invocations += 1
        self.image_bytes = len(params["Body"])
        errors = self.case.get("endpoint_errors", [])
        error = errors[min(self.invocations, len(errors)) - 1] if errors else None
        if error:
            raise AwsError(**error)
        answer = json.dumps({"inferences": self.case.get("inferences", [0.97, 0.03]), "labels": ["bicycle", "motorcycle"]}).encode()
        return {"Body": StreamingBody(io.BytesIO(answer), len(answer)), "ContentType": "application/json"}

    def invoke_function(self, backend: Any, function_name: str, qualifier: Any, body: str, headers: Any, response_headers: Any) -> bytes:
        """In place of `LambdaBackend.invoke`: runs the function in this process, and reports an exception as Lambda does."""
        name = function_name.removeprefix(ARN)
        if self.case.get("broken") == name:
            response_headers["x-amz-function-error"] = "Unhandled"
            return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": "RequestId: 1 Error: Runtime exited"}).encode()
        handler = importlib.import_module(f"lambdas.{name}.handler").lambda_handler
        try:
            return json.dumps(handler(json.loads(body), LambdaContext(name))).encode()
        except Exception as error:  # noqa: BLE001 - the Lambda runtime reports whatever is raised
            response_headers["x-amz-function-error"] = "Unhandled"
            trace = traceback.format_tb(error.__traceback__)
            report = {"errorMessage": str(error), "errorType": type(error).__name__, "requestId": "1", "stackTrace": trace}
            return json.dumps(report).encode()


def run_all(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Runs one execution for each case."""
    world = World()
    s3 = fake_client("s3", GetObject=world.get_object)
    runtime = fake_client("sagemaker-runtime", InvokeEndpoint=world.invoke_endpoint)
    vars(clients).update(s3=lambda: s3, sagemaker_runtime=lambda: runtime)
    vars(retrier_decl)["time"] = world
    type.__setattr__(LambdaBackend, "invoke", lambda backend, *args: world.invoke_function(backend, *args))
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        sqs, states = boto3.client("sqs"), boto3.client("stepfunctions")
        queue_url = sqs.create_queue(QueueName="review")["QueueUrl"]
        definition = (ROOT / "stepfunctions" / "classify.asl.json").read_text()
        for variable, function in FUNCTIONS.items():
            definition = definition.replace("${" + variable + "}", ARN + function)

        @functools.cache
        def machine(queue_suffix: str) -> str:
            own = definition.replace("${ReviewQueueUrl}", queue_url + queue_suffix)
            role = "arn:aws:iam::123456789012:role/workflow"
            return str(states.create_state_machine(name=f"classify{queue_suffix}", definition=own, roleArn=role)["stateMachineArn"])

        def run(number: int, case: dict[str, Any]) -> dict[str, Any]:
            world.begin(case)
            arn = machine(case.get("queue_suffix", ""))
            execution = states.start_execution(stateMachineArn=arn, name=f"{number}", input=json.dumps(case["input"]))["executionArn"]
            deadline = time.monotonic() + 60
            while (state := states.describe_execution(executionArn=execution))["status"] == "RUNNING" and time.monotonic() < deadline:
                time.sleep(0.01)
            messages = sqs.receive_message(QueueUrl=queue_url).get("Messages", [])
            for message in messages:
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            return {
                "status": state["status"],
                "output": json.loads(state["output"]) if state.get("output") else None,
                "error": state.get("error"),
                "cause": state.get("cause"),
                "review": [json.loads(message["Body"]) for message in messages],
                "invocations": world.invocations,
                "image_bytes": world.image_bytes,
                "pauses": world.pauses,
            }

        return {name: run(number, case) for number, (name, case) in enumerate(cases.items())}


if __name__ == "__main__":
    os.environ.update(MAX_IMAGE_BYTES="4000000", ENDPOINT_NAME="scones-production", CONFIDENCE_THRESHOLD="0.93")
    Path(sys.argv[1]).write_text(json.dumps(run_all(json.load(sys.stdin))))
