"""ImageClassification: asks the production endpoint what is in the image."""

import base64
import binascii
import os
from typing import Any

from aws_lambda_powertools.logging import Logger

from lambdas.common import clients
from lambdas.common.endpoints import classify
from lambdas.common.envelope import envelope, int_from_environment, unwrap
from lambdas.common.errors import InvalidInputError
from lambdas.common.images import detect_content_type, parse_address, read_image
from lambdas.common.observability import workflow_function

logger = Logger(service="image-classification")


@workflow_function(logger)
def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Takes SerializeImageData's envelope; reads the image from S3 itself where `image_data` is empty.

    Returns the envelope; its body without `image_data`, and with `inferences` (class probabilities, in the order of `labels`), `labels`,
    `predicted_label`, `confidence` (the highest probability) and `endpoint_name`.

    Raises: the errors of `classify` and, where it reads S3, of `read_image`; InvalidInputError for what is not that envelope.
    """
    body = unwrap(event)
    endpoint_name = os.environ["ENDPOINT_NAME"]
    data = _image(body)
    content_type = body.get("content_type") or detect_content_type(data)
    inferences, labels = classify(clients.sagemaker_runtime(), endpoint_name, data, content_type)
    confidence = max(inferences)
    predicted_label = labels[inferences.index(confidence)]
    del body["image_data"]
    answer = {"predicted_label": predicted_label, "confidence": confidence, "endpoint_name": endpoint_name}
    logger.info("Image classified", extra=answer)
    return envelope(body | {"content_type": content_type, "inferences": inferences, "labels": labels} | answer)


def _image(body: dict[str, Any]) -> bytes:
    image_data = body.get("image_data")
    if not isinstance(image_data, str):
        raise InvalidInputError("'image_data' must be base64 text, or an empty text for an image that is to be read from S3.")
    address = parse_address(body)
    if not image_data:
        return read_image(clients.s3(), address, int_from_environment("MAX_IMAGE_BYTES")).data
    try:
        return base64.b64decode(image_data, validate=True)
    except binascii.Error as error:
        raise InvalidInputError(f"'image_data' is not base64 text: {error}.") from error
