"""SerializeImageData: the envelope it makes, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.response import StreamingBody

from helpers_aws import AwsError, LambdaContext, fake_client
from lambdas.common import clients
from lambdas.common.errors import EmptyImageError, ImageNotFoundError, ImageTooLargeError, InvalidInputError, UnsupportedImageError
from lambdas.serialize_image_data.handler import INLINE_IMAGE_BYTES, lambda_handler, logger

PNG = b"\x89PNG\r\n\x1a\n"
STATE_LIMIT_BYTES = 262_144
Put = Callable[[str, bytes], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts an object into the bucket `photos` that the function sees."""
    objects: dict[str, bytes] = {}

    def get_object(params: dict[str, Any]) -> dict[str, Any]:
        if params["Key"] not in objects:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        data = objects[params["Key"]]
        return {"ContentLength": len(data), "Body": StreamingBody(io.BytesIO(data), len(data))}

    client = fake_client("s3", GetObject=get_object)
    monkeypatch.setattr(clients, "s3", lambda: client)
    monkeypatch.setenv("MAX_IMAGE_BYTES", "4000000")
    return objects.__setitem__


def run(**event: Any) -> Any:
    """Invokes as Lambda does: JSON in, JSON out."""
    return json.loads(json.dumps(lambda_handler(json.loads(json.dumps(event)), LambdaContext())))


def test_envelope(put: Put) -> None:
    put("a.jpg", PNG + b"rest")
    assert run(s3_bucket="photos", s3_key="a.jpg") == {
        "statusCode": 200,
        "body": {
            "image_data": base64.b64encode(PNG + b"rest").decode(),
            "content_type": "image/png",
            "s3_bucket": "photos",
            "s3_key": "a.jpg",
            "inferences": [],
        },
    }


def test_the_state_machine_hands_its_input_over_whole(put: Put) -> None:
    put("ein bild+ä.png", PNG)
    answer = run(input={"bucket": {"name": "photos"}, "object": {"key": "ein bild+ä.png"}}, execution_arn="arn:aws:states:...")
    assert answer["body"]["s3_key"] == "ein bild+ä.png"


def test_an_encoded_key_comes_out_decoded(put: Put) -> None:
    put("ein bild+ä.png", PNG)
    answer = run(Records=[{"s3": {"bucket": {"name": "photos"}, "object": {"key": "ein+bild%2B%C3%A4.png"}}}])
    assert answer["body"]["s3_key"] == "ein bild+ä.png"


def test_the_largest_inline_image_fits_into_a_state_with_the_longest_key(put: Put) -> None:
    key = "ä" * 512
    put(key, PNG + bytes(INLINE_IMAGE_BYTES - len(PNG)))
    answer = run(s3_bucket="photos", s3_key=key)
    assert answer["body"]["image_data"]
    # Before ResultSelector the result also holds what Lambda's API answers beside the payload; 2 KB is plenty for it.
    assert len(json.dumps(answer).encode()) + 2048 < STATE_LIMIT_BYTES


def test_above_the_cap_the_classifier_reads_s3_itself(put: Put) -> None:
    put("big.png", PNG + bytes(INLINE_IMAGE_BYTES - len(PNG) + 1))
    body = run(s3_bucket="photos", s3_key="big.png")["body"]
    assert (body["image_data"], body["content_type"]) == ("", "image/png")


@pytest.mark.parametrize("threshold", [0, 0.0, 0.5, 1, 1.0])
def test_a_threshold_is_handed_on(put: Put, threshold: float) -> None:
    put("a.png", PNG)
    assert run(s3_bucket="photos", s3_key="a.png", threshold=threshold)["body"]["threshold"] == threshold


def test_no_threshold_is_left_to_the_filter(put: Put) -> None:
    put("a.png", PNG)
    assert "threshold" not in run(s3_bucket="photos", s3_key="a.png", threshold=None)["body"]


@pytest.mark.parametrize("threshold", [1.5, -0.1, "high", "0.9", True, [0.9], {}])
def test_a_bad_threshold_is_refused_before_an_inference_is_paid_for(put: Put, threshold: object) -> None:
    put("a.png", PNG)
    with pytest.raises(InvalidInputError, match="'threshold' must be a number"):
        run(s3_bucket="photos", s3_key="a.png", threshold=threshold)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, ImageNotFoundError),
        (b"", EmptyImageError),
        (PNG + bytes(30_000_000), ImageTooLargeError),
        (b"this is no image", UnsupportedImageError),
    ],
    ids=["missing", "0 bytes", "30 MB", "text"],
)
def test_bad_objects(put: Put, data: bytes | None, error: type[Exception]) -> None:
    if data is not None:
        put("a.png", data)
    with pytest.raises(error, match=r"a\.png|image"):
        run(s3_bucket="photos", s3_key="a.png")


def test_logs_are_json_and_carry_the_execution(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", log)
    execution = "arn:aws:states:us-east-1:123456789012:execution:scones-classify:1"
    put("a.png", PNG)
    run(input={"s3_bucket": "photos", "s3_key": "a.png"}, execution_arn=execution)
    with pytest.raises(ImageNotFoundError):
        run(input={"s3_bucket": "photos", "s3_key": "b.png"}, execution_arn=execution)
    read, failed = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {read["correlation_id"], failed["correlation_id"]} == {execution}
    assert (read["level"], read["message"], read["image"]) == ("INFO", "Image read", "s3://photos/a.png")
    assert (failed["level"], failed["error_name"]) == ("ERROR", "ImageNotFoundError")


def test_a_function_without_its_setting_says_so(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png", PNG)
    monkeypatch.delenv("MAX_IMAGE_BYTES")
    with pytest.raises(RuntimeError, match="MAX_IMAGE_BYTES"):
        run(s3_bucket="photos", s3_key="a.png")
