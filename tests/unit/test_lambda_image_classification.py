"""ImageClassification: what it asks the endpoint, what it makes of the answer, and the names of what can go wrong."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody

from helpers_aws import AwsError, LambdaContext, fake_client
from lambdas.common import clients
from lambdas.common.endpoints import parse_answer
from lambdas.common.errors import (
    EndpointAccessDeniedError,
    EndpointNotFoundError,
    EndpointUnavailableError,
    ImageNotFoundError,
    InvalidInputError,
    InvalidModelResponseError,
    ModelRejectedImageError,
    TransientError,
)
from lambdas.image_classification.handler import lambda_handler

JPEG = b"\xff\xd8\xff\xe0 a photo"
ANSWER = {"inferences": [0.2, 0.7, 0.1], "labels": ["bicycle", "motorcycle", "tractor"], "predicted_label": "x", "confidence": 1}


def body_of(data: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(data), len(data))


class Endpoint:
    """An endpoint that remembers what it was asked, and answers or raises as told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: bytes | Exception = json.dumps(ANSWER).encode()
        self.client = fake_client("sagemaker-runtime", InvokeEndpoint=self._invoke)

    def _invoke(self, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(params)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Body": body_of(self.answer), "ContentType": "application/json"}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    endpoint = Endpoint()

    def get_object(params: dict[str, Any]) -> dict[str, Any]:
        if params["Key"] != "big photo+.jpg":
            raise AwsError("NoSuchKey", "", 404)
        return {"ContentLength": len(JPEG), "Body": body_of(JPEG)}

    s3 = fake_client("s3", GetObject=get_object)
    monkeypatch.setattr(clients, "sagemaker_runtime", lambda: endpoint.client)
    monkeypatch.setattr(clients, "s3", lambda: s3)
    monkeypatch.setenv("ENDPOINT_NAME", "scones-production")
    monkeypatch.setenv("MAX_IMAGE_BYTES", "4000000")
    return endpoint


def envelope(**changes: Any) -> dict[str, Any]:
    body = {
        "image_data": base64.b64encode(JPEG).decode(),
        "content_type": "image/jpeg",
        "s3_bucket": "photos",
        "s3_key": "a.jpg",
        "inferences": [],
        **changes,
    }
    return {"statusCode": 200, "body": body}


def run(event: Any) -> Any:
    return json.loads(json.dumps(lambda_handler(event, LambdaContext())))


def test_envelope_in_and_out(endpoint: Endpoint) -> None:
    assert run(envelope()) == {
        "statusCode": 200,
        "body": {
            "content_type": "image/jpeg",
            "s3_bucket": "photos",
            "s3_key": "a.jpg",
            "inferences": [0.2, 0.7, 0.1],
            "labels": ["bicycle", "motorcycle", "tractor"],
            "predicted_label": "motorcycle",
            "confidence": 0.7,
            "endpoint_name": "scones-production",
        },
    }
    assert endpoint.asked == [
        {"EndpointName": "scones-production", "ContentType": "image/jpeg", "Accept": "application/json", "Body": JPEG},
    ]


def test_the_callers_envelope_is_left_alone(endpoint: Endpoint) -> None:
    event = envelope()
    run(event)
    assert event == envelope()


def test_a_threshold_is_handed_on(endpoint: Endpoint) -> None:
    assert run(envelope(threshold=0.5))["body"]["threshold"] == 0.5


def test_a_photo_that_is_not_in_the_envelope_is_read_from_s3(endpoint: Endpoint) -> None:
    run(envelope(image_data="", s3_key="big photo+.jpg"))
    assert endpoint.asked[0]["Body"] == JPEG
    with pytest.raises(ImageNotFoundError):
        run(envelope(image_data="", s3_key="deleted meanwhile.jpg"))


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"body": "text"},
        {"s3_bucket": "photos", "s3_key": "a.jpg"},
        envelope(image_data=None),
        envelope(image_data="*"),
        envelope(s3_key=1),
    ],
    ids=["nothing", "empty", "text", "an address", "no image_data", "no base64", "no key"],
)
def test_what_is_no_envelope(endpoint: Endpoint, event: object) -> None:
    with pytest.raises(InvalidInputError):
        run(event)
    assert not endpoint.asked


def test_no_endpoint(endpoint: Endpoint) -> None:
    endpoint.answer = AwsError("ValidationError", "Endpoint scones-production of account 123456789012 not found.", 400)
    with pytest.raises(EndpointNotFoundError, match="Approve a model version"):
        run(envelope())


def test_no_permission(endpoint: Endpoint) -> None:
    endpoint.answer = AwsError("AccessDeniedException", "User is not authorized to perform: sagemaker:InvokeEndpoint", 403)
    with pytest.raises(EndpointAccessDeniedError, match="sagemaker:InvokeEndpoint"):
        run(envelope())


@pytest.mark.parametrize("status", [400, 413, 415])
def test_the_model_refuses_the_image(endpoint: Endpoint, status: int) -> None:
    message = f'Received client error ({status}) from primary with message "truncated".'
    # As the container answers: the script's exception, and a traceback that is no use to whoever sent the photo.
    reason = 'the image is truncated\nTraceback (most recent call last):\n  File "inference.py", line 1, in input_fn\n'
    endpoint.answer = AwsError("ModelError", message, 424, OriginalStatusCode=status, OriginalMessage=reason)
    with pytest.raises(ModelRejectedImageError, match=rf"HTTP {status}\): the image is truncated\. Check .* again\.$"):
        run(envelope())


def test_an_image_with_too_few_or_too_many_pixels_is_to_be_scaled(endpoint: Endpoint) -> None:
    reason = "the image has 1 x 1 pixels; each side must have at least 2"
    endpoint.answer = AwsError("ModelError", "client error (400)", 424, OriginalStatusCode=400, OriginalMessage=reason)
    with pytest.raises(ModelRejectedImageError, match=r"at least 2\. Scale the image and upload it again\.$"):
        run(envelope())


@pytest.mark.parametrize(
    "error",
    [
        AwsError("ModelError", "Received server error (500) from primary", 424, OriginalStatusCode=500, OriginalMessage="boom"),
        AwsError("ModelError", "Received server error (429)", 424, OriginalStatusCode=429, OriginalMessage="busy"),
        AwsError("ModelError", "Invocation timed out", 424),
        AwsError("ModelNotReadyException", "The model is not ready", 429),
        AwsError("ThrottlingException", "Rate exceeded", 400),
        AwsError("ServiceUnavailable", "", 503),
        AwsError("InternalFailure", "", 500),
        AwsError("InternalDependencyException", "", 530),
        ReadTimeoutError(endpoint_url="https://runtime.sagemaker"),
        EndpointConnectionError(endpoint_url="https://runtime.sagemaker"),
        ConnectionClosedError(endpoint_url="https://runtime.sagemaker"),
    ],
    ids=str,
)
def test_an_endpoint_that_is_down_or_slow_is_retryable(endpoint: Endpoint, error: Exception) -> None:
    endpoint.answer = error
    with pytest.raises(EndpointUnavailableError, match="scones-production") as raised:
        run(envelope())
    assert isinstance(raised.value, TransientError)


def test_a_mistake_in_our_own_request_is_not_called_transient(endpoint: Endpoint) -> None:
    endpoint.answer = AwsError("ValidationError", "Could not find variant", 400)
    with pytest.raises(ClientError, match="Could not find variant"):
        run(envelope())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[0.9, 0.1]",
        b"{}",
        b'{"inferences": []}',
        b'{"inferences": [0.9, 0.1]}',
        b'{"inferences": [0.9, 0.1], "labels": ["bicycle"]}',
        b'{"inferences": [0.9, 0.1], "labels": "bicycle"}',
        b'{"inferences": [0.9, 0.1], "labels": [1, 2]}',
        b'{"inferences": ["0.9", "0.1"], "labels": ["a", "b"]}',
        b'{"inferences": [NaN, 0.1], "labels": ["a", "b"]}',
        b'{"inferences": [90, 10], "labels": ["a", "b"]}',
    ],
)
def test_an_answer_that_is_not_the_agreed_json_is_never_an_inference(answer: bytes) -> None:
    with pytest.raises(InvalidModelResponseError, match="not the agreed JSON"):
        parse_answer(answer)
