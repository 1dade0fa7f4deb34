"""SerializeImageData: reads an image from S3 and hands it on as text, with the type its bytes say it has."""

import base64
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.logging import Logger

from lambdas.common import clients
from lambdas.common.envelope import THRESHOLD_FIELD, envelope, int_from_environment, parse_threshold
from lambdas.common.images import detect_content_type, parse_address, read_image
from lambdas.common.observability import workflow_function

# A state's data may have 262,144 bytes (https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html). Base64 makes 240,000 of
# this many bytes, which leaves room for keys, the invocation's metadata and the previous state.
INLINE_IMAGE_BYTES = 180_000

logger = Logger(service="serialize-image-data")


@workflow_function(logger)
def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Takes an address (see `parse_address`), at the top level or under `input`, and optionally `threshold`.

    Returns the envelope; its body holds `image_data` (base64 text; "" above INLINE_IMAGE_BYTES, when the classifier reads S3 itself),
    `content_type`, `s3_bucket`, `s3_key` (decoded), `inferences` (empty), and `threshold` when one was given.

    Raises: the errors of `parse_address`, `parse_threshold`, `read_image` and `detect_content_type`.
    """
    request = event["input"] if isinstance(event, Mapping) and "input" in event else event
    address = parse_address(request)
    threshold = request.get(THRESHOLD_FIELD)
    # Checked here although the last function uses it: a mistake shall not cost an inference.
    chosen = {} if threshold is None else {THRESHOLD_FIELD: parse_threshold(threshold)}
    image = read_image(clients.s3(), address, int_from_environment("MAX_IMAGE_BYTES"))
    content_type = detect_content_type(image.data)
    inline = len(image.data) <= INLINE_IMAGE_BYTES
    logger.info("Image read", extra={"image": str(image.address), "bytes": len(image.data), "content_type": content_type, "inline": inline})
    return envelope(
        {
            "image_data": base64.b64encode(image.data).decode("ascii") if inline else "",
            "content_type": content_type,
            "s3_bucket": image.address.bucket,
            "s3_key": image.address.key,
            "inferences": [],
            **chosen,
        }
    )
