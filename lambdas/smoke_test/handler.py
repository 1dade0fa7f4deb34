"""A custom resource of the inference stack that has no substance: creating or updating it tries what the stack has just deployed.

The model version's own sample payload goes through the endpoint and, as one execution, through the workflow. When that fails, the resource
fails, and CloudFormation takes the whole change back, so that what served before serves again. What CloudFormation sends, and what is done:

- Create, and Update when something that matters has changed: the test.
- Update while the stack is being rolled back, with the properties from before: nothing. What is put back has passed its own test, and a
  failure now would leave the stack in UPDATE_ROLLBACK_FAILED, which only a person can get it out of.
- Delete, also in the clean-up of a failed creation: nothing.

CloudFormation waits for an answer, not for the function: so whatever happens, one is sent.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import boto3
from aws_lambda_powertools.logging import Logger
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common import clients
from lambdas.smoke_test.checks import check_endpoint, check_workflow
from lambdas.smoke_test.custom_resource import Request, RequestType
from lambdas.smoke_test.errors import InvalidRequestError, SmokeTestError
from lambdas.smoke_test.payload import read_sample_payload

# Left for the longest single call (the endpoint's, tried twice), and for the answer.
RESERVE_SECONDS = 90.0

logger = Logger(service="smoke-test")


@logger.inject_lambda_context(correlation_id_path="RequestId", clear_state=True)
def lambda_handler(event: Any, context: Any) -> dict[str, str]:
    """Handles one request of CloudFormation for a `Custom::SmokeTest`, whose properties are ModelPackageArn, EndpointName, StateMachineArn,
    and whatever else shall have the test run again when it changes.

    Returns `{"outcome": "passed" | "failed" | "skipped", "reason": ...}`, which is also logged.

    Raises:
        InvalidRequestError: the event is no request of CloudFormation.
        OSError: the answer could not be delivered; Lambda then tries the whole request again.
    """
    try:
        request = Request.parse(event)
    except InvalidRequestError as error:
        logger.error(str(error), extra={"error_name": type(error).__name__})
        raise
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
    reason: str | None = None
    skipped = ""
    try:
        skipped = _reason_to_skip(request)
        if not skipped:
            _test(request, lambda: deadline - time.monotonic())
    except SmokeTestError as error:
        reason = str(error)
    except Exception as error:  # the boundary: without an answer CloudFormation would wait for the resource's whole timeout
        logger.exception("The smoke test itself failed")
        reason = f"The smoke test could not be made: {type(error).__name__}: {error}"
    request.answer(reason)
    answer = {"outcome": "skipped" if skipped else "passed" if reason is None else "failed", "reason": skipped or reason or ""}
    logger.info("Smoke test", extra={**answer, "request_type": request.type, "stack": request.stack_id})
    return answer


def _reason_to_skip(request: Request) -> str:
    if request.type is RequestType.DELETE:
        return "there is nothing to delete"
    if request.type is RequestType.UPDATE and "ROLLBACK" in _stack_status(request.stack_id):
        return "the stack is being rolled back to what has passed before"
    return ""


def _stack_status(stack_id: str) -> str:
    try:
        return str(cloudformation().describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])
    except (ClientError, BotoCoreError):
        # Better to test once too often: what is being put back passes.
        logger.exception("The stack's status cannot be read; the test is made")
        return "unknown"


def _test(request: Request, seconds_left: Callable[[], float]) -> None:
    properties = request.properties
    payload = read_sample_payload(sagemaker(), clients.s3(), properties["ModelPackageArn"])
    labels = check_endpoint(clients.sagemaker_runtime(), properties["EndpointName"], payload)
    bucket = os.environ["IMAGE_BUCKET_NAME"]
    clients.s3().put_object(Bucket=bucket, Key=payload.key, Body=payload.data, ContentType=payload.content_type)
    check_workflow(step_functions(), properties["StateMachineArn"], bucket, payload, labels, seconds_left)


def _config() -> Config:
    return Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=2, read_timeout=10)


@functools.cache
def cloudformation() -> Any:
    """Returns the CloudFormation client of this execution environment."""
    return boto3.client("cloudformation", config=_config())


@functools.cache
def sagemaker() -> Any:
    """Returns the SageMaker client of this execution environment."""
    return boto3.client("sagemaker", config=_config())


@functools.cache
def step_functions() -> Any:
    """Returns the Step Functions client of this execution environment."""
    return boto3.client("stepfunctions", config=_config())
