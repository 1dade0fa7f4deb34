"""Where an image is, reading it from S3, and what it is."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError, ParamValidationError

from lambdas.common.clients import NO_ANSWER
from lambdas.common.errors import (
    EmptyImageError,
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageStoreUnavailableError,
    ImageTooLargeError,
    InvalidInputError,
    UnsupportedImageError,
)

EXPECTED_INPUT = '{"s3_bucket": "...", "s3_key": "...", "threshold": 0.0 to 1.0 (optional)} or the detail of an S3 "Object Created" event'
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES = 1024
_NOT_FOUND = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404"})
_BAD_ADDRESS = frozenset({"InvalidBucketName", "KeyTooLongError", "InvalidURI"})
_THROTTLED = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"})


@dataclass(frozen=True)
class ImageAddress:
    """An object in S3. `decoded_key` is set where it is open whether the sender URL-encoded the key: it is tried when `key` is missing."""

    bucket: str
    key: str
    decoded_key: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Image:
    """An image as read: its bytes, and the address at which it was found."""

    address: ImageAddress
    data: bytes


def parse_address(event: object) -> ImageAddress:
    """Finds the address of the image in what started the execution.

    Takes `{"s3_bucket", "s3_key"}` (the key as it is), an EventBridge `Object Created` event or its `detail`, and an S3 notification with
    one record (whose keys S3 URL-encodes: a space as `+`, a plus as `%2B`).

    Raises:
        InvalidInputError: neither of these, or a bucket or key that cannot exist.
    """
    if not isinstance(event, Mapping):
        raise InvalidInputError(f"The input must be a JSON object, {EXPECTED_INPUT}; got {_kind(event)}.")
    if "s3_bucket" in event or "s3_key" in event:
        return _address(event.get("s3_bucket"), event.get("s3_key"), "s3_bucket", "s3_key")
    if isinstance(event.get("Records"), list):
        records = event["Records"]
        if len(records) != 1:
            raise InvalidInputError(
                f"An execution classifies one image; the notification holds {len(records)} records. Start one for each."
            )
        return _from_s3_entity(_mapping(records[0]).get("s3"), "Records[0].s3", encoded=True)
    detail = event["detail"] if isinstance(event.get("detail"), Mapping) else event
    if "bucket" in detail and "object" in detail:
        return _from_s3_entity(detail, "detail", encoded=None)
    raise InvalidInputError(f"The input names no image: expected {EXPECTED_INPUT}; got the keys {sorted(map(str, event))}.")


def _from_s3_entity(entity: object, where: str, *, encoded: bool | None) -> ImageAddress:
    fields = _mapping(entity)
    address = _address(
        _mapping(fields.get("bucket")).get("name"), _mapping(fields.get("object")).get("key"), f"{where}.bucket.name", f"{where}.object.key"
    )
    decoded = unquote_plus(address.key)
    if decoded == address.key or encoded is False:
        return address
    # S3 documents URL-encoding for its notifications, and says nothing of it for EventBridge, whose keys were seen as they are.
    return ImageAddress(address.bucket, decoded) if encoded else ImageAddress(address.bucket, address.key, decoded_key=decoded)


def _address(bucket: object, key: object, bucket_field: str, key_field: str) -> ImageAddress:
    if not isinstance(bucket, str) or not bucket:
        raise InvalidInputError(f"'{bucket_field}' must be the name of a bucket; got {_kind(bucket)}.")
    if "/" in bucket and not bucket.startswith("arn:"):
        raise InvalidInputError(f"'{bucket_field}' must be the name of a bucket alone, without 's3://' or a path; got '{bucket}'.")
    if not isinstance(key, str) or not key:
        raise InvalidInputError(f"'{key_field}' must be the key of an object; got {_kind(key)}.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"'{key_field}' is not valid Unicode ({error.reason}).") from error
    if size > MAX_KEY_BYTES:
        raise InvalidInputError(f"'{key_field}' has {size} bytes; S3 allows {MAX_KEY_BYTES}.")
    return ImageAddress(bucket, key)


def read_image(client: Any, address: ImageAddress, max_bytes: int) -> Image:
    """Reads an image of at most `max_bytes` bytes. A larger one is refused without being read.

    Raises:
        ImageNotFoundError, ImageAccessDeniedError, EmptyImageError, ImageTooLargeError, InvalidInputError: as their names say.
        ImageStoreUnavailableError: S3 was throttled, failed or did not answer in time; trying again may help.
    """
    try:
        return Image(address, _read(client, address, max_bytes))
    except ImageNotFoundError:
        if address.decoded_key is None:
            raise
    decoded = ImageAddress(address.bucket, address.decoded_key)
    return Image(decoded, _read(client, decoded, max_bytes))


def _read(client: Any, address: ImageAddress, max_bytes: int) -> bytes:
    try:
        response = client.get_object(Bucket=address.bucket, Key=address.key)
        size = response["ContentLength"]
        with closing(response["Body"]) as body:
            if size == 0:
                raise EmptyImageError(f"{address} has 0 bytes: its upload did not finish. Upload it again.")
            if size > max_bytes:
                raise ImageTooLargeError(
                    f"{address} has {size:,} bytes; the endpoint takes at most {max_bytes:,}. Scale the image down and upload it again."
                )
            data: bytes = body.read()
            return data
    except ParamValidationError as error:
        raise InvalidInputError(f"{address} is not an address in S3: {error}") from error
    except ClientError as error:
        _raise_for_client_error(error, address)
    except NO_ANSWER as error:
        raise ImageStoreUnavailableError(f"S3 did not deliver {address}: {error}") from error


def _raise_for_client_error(error: ClientError, address: ImageAddress) -> NoReturn:
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    message = error.response["Error"].get("Message", "")
    if code in _NOT_FOUND:
        what = f"The bucket '{address.bucket}' does not exist" if code == "NoSuchBucket" else f"There is no object {address}"
        raise ImageNotFoundError(f"{what}. Check bucket and key (case counts, and nothing is URL-encoded), or upload it.") from error
    if code == "InvalidObjectState":
        raise ImageAccessDeniedError(f"{address} is archived ({message}). Restore it, then start a new execution.") from error
    if code in _BAD_ADDRESS:
        raise InvalidInputError(f"{address} is not an address in S3 ({code}: {message}).") from error
    if code in _THROTTLED or status == 429 or status >= 500:
        raise ImageStoreUnavailableError(f"S3 could not deliver {address} ({code}, HTTP {status}: {message}).") from error
    if status == 403 or code.startswith("KMS"):
        raise ImageAccessDeniedError(
            f"S3 denies reading {address} ({code}: {message}). Grant the function's role s3:GetObject on it (and kms:Decrypt on its key), "
            "and s3:ListBucket on the bucket; without the latter S3 also says so of objects that do not exist."
        ) from error
    raise error


def detect_content_type(data: bytes) -> str:
    """Returns the MIME type that the endpoint shall be told, from the first bytes: names and stored content types are often wrong.

    PNG, JPEG and WebP have their own; BMP goes as `application/x-image`, for which the model container looks at the bytes itself.

    Raises:
        UnsupportedImageError: anything else; the message names the format where it is a known one.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    # "BM" alone would let texts through: bytes 6-9 are reserved and zero (BITMAPFILEHEADER).
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "application/x-image"
    found = _known_format(data)
    if found is None:
        raise UnsupportedImageError("The object is not an image by its first bytes. Send PNG, JPEG or WebP.")
    raise UnsupportedImageError(
        f"The object is a {found} file by its first bytes. Send PNG, JPEG or WebP: convert the file, renaming it does not help."
    )


def _known_format(data: bytes) -> str | None:
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    if data[:4] == b"%PDF":
        return "PDF"
    if data[:4] == b"PK\x03\x04":
        return "ZIP"
    if data.lstrip()[:4] == b"<svg" or data.lstrip()[:5] == b"<?xml":
        return "SVG or XML"
    return None


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _kind(value: object) -> str:
    return "nothing" if value is None else "an empty text" if value == "" else f"{type(value).__name__} {value!r:.80}"
