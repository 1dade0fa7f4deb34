"""Asking an endpoint what is in an image, and reading its answer."""

import json
from typing import Any, NoReturn

from botocore.exceptions import ClientError

from lambdas.common import clients
from lambdas.common.envelope import parse_probabilities
from lambdas.common.errors import (
    EndpointAccessDeniedError,
    EndpointNotFoundError,
    EndpointUnavailableError,
    InvalidModelResponseError,
    ModelRejectedImageError,
)

_ACCESS_DENIED = frozenset({"AccessDeniedException", "AccessDenied"})


def classify(client: Any, endpoint_name: str, data: bytes, content_type: str) -> tuple[list[float], list[str]]:
    """Invokes the endpoint with an encoded image.

    Returns (class probabilities, class labels), both in label order.

    Raises:
        EndpointNotFoundError, EndpointAccessDeniedError, ModelRejectedImageError, InvalidModelResponseError: as their names say.
        EndpointUnavailableError: timeout, throttling, container not ready, 5xx; trying again may help.
    """
    try:
        response = client.invoke_endpoint(EndpointName=endpoint_name, ContentType=content_type, Accept="application/json", Body=data)
        answer = response["Body"].read()
    except ClientError as error:
        _raise_for_client_error(error, endpoint_name)
    except clients.NO_ANSWER as error:
        raise EndpointUnavailableError(f"The endpoint '{endpoint_name}' did not answer: {error}") from error
    return parse_answer(answer)


def _raise_for_client_error(error: ClientError, endpoint_name: str) -> NoReturn:
    # The container's own status and text are beside the error's, at the top level of the answer
    # (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html, ModelError).
    details: dict[str, Any] = dict(error.response)
    code = details["Error"]["Code"]
    message = details["Error"].get("Message", "")
    status = details["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code == "ModelError":
        original_status = int(details.get("OriginalStatusCode") or 500)
        # The container's text goes on with a traceback, which is in its log, too, and tells nobody what to do.
        reason = str(details.get("OriginalMessage") or message).partition("\nTraceback (most recent call last)")[0].strip()
        if original_status < 500 and original_status != 429:
            # The container says how many pixels there are and how many there may be.
            mend = "Scale the image" if " pixels" in reason else "Check that the file opens in a viewer, save it anew"
            raise ModelRejectedImageError(
                f"The model refused the image (HTTP {original_status}): {reason.rstrip('.')}. {mend} and upload it again."
            ) from error
        raise EndpointUnavailableError(
            f"The model container behind '{endpoint_name}' failed (HTTP {original_status}): {reason.rstrip('.')}. "
            f"Its log group is /aws/sagemaker/Endpoints/{endpoint_name}."
        ) from error
    if code in ("ValidationError", "ValidationException") and "not found" in message.lower():
        raise EndpointNotFoundError(
            f"The endpoint '{endpoint_name}' is not in service ({message}). Approve a model version in the registry: that deploys it."
        ) from error
    if code in _ACCESS_DENIED:
        raise EndpointAccessDeniedError(
            f"The function may not invoke '{endpoint_name}' ({message}). Grant its role sagemaker:InvokeEndpoint on that endpoint."
        ) from error
    if status == 413:
        raise ModelRejectedImageError(
            f"A request of this size is refused by '{endpoint_name}' ({message}). Scale the image down."
        ) from error
    # What is left, but for mistakes in our own request: ModelNotReadyException, ThrottlingException, ServiceUnavailable, InternalFailure.
    if status >= 500 or status == 429 or "Throttl" in code or code == "ModelNotReadyException":
        raise EndpointUnavailableError(f"The endpoint '{endpoint_name}' could not answer ({code}, HTTP {status}: {message}).") from error
    raise error


def parse_answer(answer: bytes) -> tuple[list[float], list[str]]:
    """Returns (class probabilities, class labels) of a model container's answer.

    Raises:
        InvalidModelResponseError: not the JSON agreed on with the container.
    """
    try:
        document = json.loads(answer)
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        inferences = parse_probabilities(document.get("inferences"))
        labels = document.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels) or len(labels) != len(inferences):
            raise ValueError(f"'labels' must name each of the {len(inferences)} classes; got {labels!r:.80}")
    except ValueError as error:
        raise InvalidModelResponseError(
            f"The endpoint's answer is not the agreed JSON: {error}. "
            "The model version in service does not fit this workflow; reject it in the registry."
        ) from error
    return inferences, labels
