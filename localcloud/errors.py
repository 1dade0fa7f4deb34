"""Errors that localcloud answers with, in AWS's shape, and errors of starting it."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class ServiceError(ServiceException):
    """Indicates that a request is refused; becomes the service's error response.

    Args:
        code: The service's error code, e.g. ``ValidationException`` or ``ResourceNotFound``. A code from the service's botocore model brings its own HTTP status.
        message: What AWS would say.
        status: HTTP status when the code is not in the service's model (default 400).
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message)
        self.status = status


def not_supported(what: str, code: str = "ValidationException") -> ServiceError:
    """Return the error for something that AWS has and localcloud has not: never a silent success, never an HTTP 5xx that boto3 would retry."""
    return ServiceError(code, f"{what} is not supported by localcloud")


class LocalCloudError(Exception):
    """Indicates that localcloud cannot start or go on; the message says why and what to do."""
