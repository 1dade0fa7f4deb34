"""What a deployment must be able to do: classify an image, asked at the endpoint and through the workflow."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from lambdas.common.endpoints import classify
from lambdas.common.errors import TransientError, WorkflowError
from lambdas.smoke_test.errors import SmokeTestError
from lambdas.smoke_test.payload import SamplePayload

ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 0.5
# Executions take tens of milliseconds on a warm system, seconds on a cold one.
FIRST_POLL_SECONDS = 0.03
LAST_POLL_SECONDS = 2.0
_SUM_TOLERANCE = 0.01
_REQUIRED = ("decision", "predicted_label", "confidence", "inferences", "labels", "s3_bucket", "s3_key")


def check_endpoint(runtime: Any, endpoint_name: str, payload: SamplePayload) -> list[str]:
    """Sends the sample payload to the endpoint. Returns the labels that it answers with.

    Raises:
        SmokeTestError: it does not answer with the agreed JSON, also when tried again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            inferences, labels = classify(runtime, endpoint_name, payload.data, payload.content_type)
        except TransientError as error:
            if attempt == ATTEMPTS:
                raise SmokeTestError(f"The endpoint failed on the version's sample payload, {ATTEMPTS} times: {error}") from error
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        except WorkflowError as error:
            raise SmokeTestError(f"The endpoint failed on the version's sample payload: {error}") from error
        else:
            _check_probabilities(inferences, labels)
            return labels
    raise AssertionError("the last attempt returns or raises")


def check_workflow(
    states: Any, state_machine_arn: str, bucket: str, payload: SamplePayload, labels: Sequence[str], seconds_left: Callable[[], float]
) -> None:
    """Classifies the sample payload, which is at `payload.key` in `bucket`, with one execution.

    Its threshold is 0, so that whatever the model says is accepted, and nothing of the test waits for a person in the review queue.

    Raises:
        SmokeTestError: the execution fails, takes too long, or its result is not the agreed one.
    """
    request = {"s3_bucket": bucket, "s3_key": payload.key, "threshold": 0.0}
    arn = states.start_execution(stateMachineArn=state_machine_arn, input=json.dumps(request))["executionArn"]
    pause = FIRST_POLL_SECONDS
    while (execution := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
        if seconds_left() <= pause:
            raise SmokeTestError(f"The workflow did not classify the version's sample payload in time: {arn} still runs.")
        time.sleep(pause)
        pause = min(pause * 1.5, LAST_POLL_SECONDS)
    if execution["status"] != "SUCCEEDED":
        reason = f"{execution.get('error', execution['status'])}: {execution.get('cause', 'no cause')}"
        raise SmokeTestError(f"The workflow failed on the version's sample payload: {reason} ({arn})")
    result = json.loads(execution["output"])
    missing = [name for name in _REQUIRED if name not in result]
    if missing:
        raise SmokeTestError(f"The workflow's result lacks {', '.join(missing)} ({arn}).")
    if result["decision"] != "accepted":
        raise SmokeTestError(f"At threshold 0 the workflow must accept; its decision was {result['decision']!r} ({arn}).")
    if list(result["labels"]) != list(labels):
        raise SmokeTestError(f"The workflow's labels {result['labels']} are not the endpoint's {list(labels)} ({arn}).")
    _check_probabilities(result["inferences"], result["labels"])


def _check_probabilities(inferences: Sequence[float], labels: Sequence[str]) -> None:
    if len(set(labels)) < max(2, len(labels)):
        raise SmokeTestError(f"A classifier has two or more labels, each once; this one has {list(labels)}.")
    total = sum(inferences)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise SmokeTestError(f"Class probabilities must add up to 1; the model's answer to its own sample payload adds up to {total:.4f}.")
