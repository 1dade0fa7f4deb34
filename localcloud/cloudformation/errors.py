"""How the engine and the resource providers say that something went wrong."""

from __future__ import annotations

import re
import uuid
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.errors import ServiceError, not_supported

_NOT_FOUND = re.compile(r"NotFound|NoSuch|NonExistent|DoesNotExist|NoLongerExist")
_ALREADY_EXISTS = re.compile(r"AlreadyExist|AlreadyOwned|ResourceInUse|QueueNameExists|EntityAlreadyExists|StateMachineAlreadyExists")
_MESSAGE_NOT_FOUND = re.compile(r"^(Could not find|Cannot find)|(does not|doesn't) exist|not found", re.IGNORECASE)


def validation_error(message: str) -> ServiceError:
    """Return CloudFormation's error for a request or a template that is wrong."""
    return ServiceError("ValidationError", message)


def unsupported(what: str) -> ServiceError:
    """Return the error for something that AWS has and localcloud has not."""
    return not_supported(what, "ValidationError")


class ResourceFailure(Exception):
    """Indicates that a resource could not be created, updated or deleted; its text becomes the ResourceStatusReason.

    Attributes:
        not_found: The resource does not exist, so that deleting it is done.
    """

    def __init__(self, reason: str, *, not_found: bool = False) -> None:
        super().__init__(reason)
        self.not_found = not_found


class Cancelled(Exception):
    """Indicates that the work on a resource ended early because its stack operation did."""


class Stopping(Exception):
    """Indicates that the process is ending; what was under way is taken up again at the next start."""


def handler_failure(message: str, code: str = "GeneralServiceException", *, not_found: bool = False) -> ResourceFailure:
    """Return a failure in the words of a CloudFormation resource handler.

    Args:
        message: What the service said.
        code: HandlerErrorCode, e.g. ``AlreadyExists``, ``InvalidRequest``, ``NotStabilized``.
        not_found: See `ResourceFailure`.
    """
    return ResourceFailure(
        f'Resource handler returned message: "{message}" (RequestToken: {uuid.uuid4()}, HandlerErrorCode: {code})', not_found=not_found
    )


def already_exists(type_name: str, identifier: str) -> ResourceFailure:
    """Return the failure of creating something under a name that is taken."""
    return handler_failure(f"Resource of type '{type_name}' with identifier '{identifier}' already exists.", "AlreadyExists")


def failure_of(error: ClientError | BotoCoreError, service: str) -> ResourceFailure:
    """Turn what a service answered to a provider into the resource's failure.

    Args:
        error: What boto3 raised.
        service: The service part of the resource type, e.g. ``Lambda``.
    """
    if not isinstance(error, ClientError):
        # botocore's own validation: the property has the wrong form for the API that it becomes.
        return handler_failure(str(error), "InvalidRequest")
    details: dict[str, Any] = dict(error.response.get("Error", {}))
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    code, message = str(details.get("Code", "Unknown")), str(details.get("Message", error))
    status = int(metadata.get("HTTPStatusCode", 400))
    not_found = (
        bool(_NOT_FOUND.search(code)) or code == "404" or (code.startswith("Validation") and bool(_MESSAGE_NOT_FOUND.search(message)))
    )
    handler_code = "InvalidRequest"
    if not_found:
        handler_code = "NotFound"
    elif _ALREADY_EXISTS.search(code) or (code.startswith("Validation") and "already exist" in message):
        handler_code = "AlreadyExists"
    elif "AccessDenied" in code or status == 403:
        handler_code = "AccessDenied"
    elif status >= 500:
        handler_code = "ServiceInternalError"
    request = metadata.get("RequestId") or uuid.uuid4()
    return handler_failure(
        f"{message} (Service: {service}, Status Code: {status}, Request ID: {request})", handler_code, not_found=not_found
    )
