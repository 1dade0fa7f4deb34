"""Addresses of images, reading them, and telling what they are (`lambdas/common`)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from helpers_aws import AwsError, fake_client
from lambdas.common.envelope import parse_probabilities, parse_threshold
from lambdas.common.errors import (
    EmptyImageError,
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageStoreUnavailableError,
    ImageTooLargeError,
    InvalidInputError,
    UnsupportedImageError,
)
from lambdas.common.images import ImageAddress, detect_content_type, parse_address, read_image

EVENTS = Path(__file__).parent.parent / "events"
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


def s3_with(objects: dict[tuple[str, str], bytes]) -> Any:
    """An S3 client onto these objects."""

    def get_object(params: dict[str, Any]) -> dict[str, Any]:
        data = objects.get((params["Bucket"], params["Key"]))
        if data is None:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        return {"ContentLength": len(data), "Body": StreamingBody(io.BytesIO(data), len(data))}

    return fake_client("s3", GetObject=get_object)


def s3_failing(error: Exception) -> Any:
    """An S3 client whose reads end in `error`."""

    def get_object(params: dict[str, Any]) -> dict[str, Any]:
        raise error

    return fake_client("s3", GetObject=get_object)


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(buffer, image_format)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------------ addresses


@given(KEYS)
def test_direct_keys_are_taken_as_they_are(key: str) -> None:
    if len(key.encode()) <= 1024:
        assert parse_address({"s3_bucket": "photos", "s3_key": key}) == ImageAddress("photos", key)


@given(KEYS)
def test_keys_of_notifications_are_url_decoded(key: str) -> None:
    if len(key.encode()) > 1024:
        return
    record = {"s3": {"bucket": {"name": "photos"}, "object": {"key": quote_plus(key, safe="/")}}}
    encoded_size = len(record["s3"]["object"]["key"])
    if encoded_size <= 1024:
        assert parse_address({"Records": [record]}) == ImageAddress("photos", key)


@given(KEYS, st.booleans())
def test_object_created_finds_the_object_whether_or_not_its_key_is_encoded(key: str, encode: bool) -> None:
    told = quote_plus(key, safe="/") if encode else key
    if max(len(told.encode()), len(key.encode())) > 1024:
        return
    address = parse_address({"bucket": {"name": "photos"}, "object": {"key": told}})
    image = read_image(s3_with({("photos", key): b"data"}), address, 100)
    assert (image.address.key, image.data) == (key, b"data")


def test_aws_s3_events() -> None:
    created = json.loads((EVENTS / "s3_object_created.json").read_text())
    assert parse_address(created) == parse_address(created["detail"]) == ImageAddress("amzn-s3-demo-bucket1", "example-key")
    notification = json.loads((EVENTS / "s3_notification.json").read_text())
    assert parse_address(notification) == ImageAddress("amzn-s3-demo-bucket", "red flower+ü.jpg")


@pytest.mark.parametrize(
    "event",
    [
        None,
        "s3://photos/a.png",
        [1],
        {},
        {"s3_bucket": "photos"},
        {"s3_key": "a.png"},
        {"s3_bucket": "", "s3_key": "a.png"},
        {"s3_bucket": "s3://photos", "s3_key": "a.png"},
        {"s3_bucket": 7, "s3_key": "a.png"},
        {"s3_bucket": "photos", "s3_key": ""},
        {"s3_bucket": "photos", "s3_key": ["a.png"]},
        {"s3_bucket": "photos", "s3_key": "ä" * 513},
        {"s3_bucket": "photos", "s3_key": "\ud800"},
        {"Records": []},
        {"Records": [{}, {}]},
        {"Records": [{"s3": {"bucket": {"name": "photos"}}}]},
        {"bucket": "photos", "object": {"key": "a.png"}},
        {"image": "a.png"},
    ],
)
def test_what_is_no_address_is_refused_with_what_is_expected(event: object) -> None:
    with pytest.raises(InvalidInputError, match=r"must|expected|names|one image|allows|Unicode"):
        parse_address(event)


# -------------------------------------------------------------------------------------------------------------------- reading


def test_missing_object_and_bucket() -> None:
    with pytest.raises(ImageNotFoundError, match=r"no object s3://photos/a b\+c\.png"):
        read_image(s3_with({}), ImageAddress("photos", "a b+c.png"), 100)
    with pytest.raises(ImageNotFoundError, match="bucket 'photos' does not exist"):
        read_image(s3_failing(AwsError("NoSuchBucket", "The specified bucket does not exist", 404)), ImageAddress("photos", "a.png"), 100)


def test_a_missing_object_that_may_have_been_encoded_is_reported_missing() -> None:
    with pytest.raises(ImageNotFoundError):
        read_image(s3_with({}), ImageAddress("photos", "a+b", decoded_key="a b"), 100)


def test_no_permission_says_which_one() -> None:
    with pytest.raises(ImageAccessDeniedError, match="s3:GetObject"):
        read_image(s3_failing(AwsError("AccessDenied", "Access Denied", 403)), ImageAddress("photos", "a.png"), 100)
    with pytest.raises(ImageAccessDeniedError, match="kms:Decrypt"):
        read_image(s3_failing(AwsError("KMS.DisabledException", "key is disabled", 400)), ImageAddress("photos", "a.png"), 100)


def test_archived_object_says_restore() -> None:
    denied = AwsError("InvalidObjectState", "The operation is not valid for the object's storage class", 403)
    with pytest.raises(ImageAccessDeniedError, match="Restore it"):
        read_image(s3_failing(denied), ImageAddress("photos", "a.png"), 100)


def test_empty_object() -> None:
    with pytest.raises(EmptyImageError, match="0 bytes"):
        read_image(s3_with({("photos", "a.png"): b""}), ImageAddress("photos", "a.png"), 100)


def test_a_30_mb_object_is_refused_without_being_read() -> None:
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("the object was read")

    body = StreamingBody(Unread(), 30_000_000)
    client = fake_client("s3", GetObject=lambda params: {"ContentLength": 30_000_000, "Body": body})
    with pytest.raises(ImageTooLargeError, match=r"30,000,000 bytes; the endpoint takes at most 4,000,000"):
        read_image(client, ImageAddress("photos", "a.png"), 4_000_000)


def test_the_largest_image_is_read() -> None:
    assert read_image(s3_with({("photos", "a.png"): b"x" * 100}), ImageAddress("photos", "a.png"), 100).data == b"x" * 100


@pytest.mark.parametrize(
    "error",
    [
        AwsError("SlowDown", "Please reduce your request rate.", 503),
        AwsError("InternalError", "We encountered an internal error.", 500),
        AwsError("RequestTimeout", "Idle connection", 400),
        AwsError("TooManyRequests", "", 429),
        ReadTimeoutError(endpoint_url="https://s3"),
        ConnectTimeoutError(endpoint_url="https://s3"),
        EndpointConnectionError(endpoint_url="https://s3"),
    ],
    ids=repr,
)
def test_passing_troubles_of_s3_are_retryable(error: Exception) -> None:
    with pytest.raises(ImageStoreUnavailableError):
        read_image(s3_failing(error), ImageAddress("photos", "a.png"), 100)


def test_a_connection_that_breaks_while_reading_is_retryable() -> None:
    cut = StreamingBody(io.BytesIO(b"half"), 8)
    client = fake_client("s3", GetObject=lambda params: {"ContentLength": 8, "Body": cut})
    with pytest.raises(ImageStoreUnavailableError):
        read_image(client, ImageAddress("photos", "a.png"), 100)


def test_an_impossible_bucket_name_is_an_input_error() -> None:
    with pytest.raises(InvalidInputError):
        read_image(s3_with({}), ImageAddress("no such bucket!", "a.png"), 100)


# --------------------------------------------------------------------------------------------------------------- content type


@pytest.mark.parametrize(
    ("image_format", "content_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("BMP", "application/x-image")],
)
def test_content_type_comes_from_the_bytes(image_format: str, content_type: str) -> None:
    assert detect_content_type(encoded(image_format)) == content_type


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"hello, I am a text\n", "not an image"),
        (b"BM is how this text begins", "not an image"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "not an image"),
        (b"\x89PN", "not an image"),
        (encoded("GIF"), "GIF"),
        (encoded("TIFF"), "TIFF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04", "ZIP"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_anything_else_is_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedImageError, match=named):
        detect_content_type(data)


# ------------------------------------------------------------------------------------------------- thresholds, probabilities


@given(st.floats(0, 1) | st.integers(0, 1))
def test_thresholds_from_0_to_1(value: float) -> None:
    assert parse_threshold(value) == value


@given(
    st.one_of(
        st.floats(max_value=0, exclude_max=True),
        st.floats(min_value=1, exclude_min=True),
        st.just(float("nan")),
        st.text(),
        st.booleans(),
        st.none(),
        st.lists(st.floats(0, 1)),
        st.integers(max_value=-1),
        st.integers(min_value=2),
    )
)
def test_what_is_no_threshold(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"'threshold' must be a number from 0\.0 to 1\.0"):
        parse_threshold(value)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_probabilities(value: list[float]) -> None:
    assert parse_probabilities(value) == value


@pytest.mark.parametrize("value", [None, [], {}, "0.9", [None], ["0.9"], [True], [1.1], [-0.1], [float("nan")], [float("inf")], [[0.5]]])
def test_what_are_no_probabilities(value: object) -> None:
    with pytest.raises(ValueError, match="'inferences' must"):
        parse_probabilities(value)
