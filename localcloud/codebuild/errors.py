"""How a build fails and how a request is refused."""

from __future__ import annotations

from localcloud.errors import ServiceError, not_supported

INVALID = "InvalidInputException"
NOT_FOUND = "ResourceNotFoundException"


class PhaseFailure(Exception):
    """Indicates that a phase of a build failed.

    Args:
        code: The context's statusCode, e.g. ``COMMAND_EXECUTION_ERROR``.
        message: The context's message.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ServiceError:
    """Return the error for a request that CodeBuild does not take."""
    return ServiceError(INVALID, message)


def unsupported(what: str) -> ServiceError:
    """Return the error for something that CodeBuild has and localcloud has not."""
    return not_supported(what, INVALID)
