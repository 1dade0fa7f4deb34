"""Errors of a running state machine, by the names that Retry and Catch match.

https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
"""

from __future__ import annotations

from enum import StrEnum


class ErrorName(StrEnum):
    """Error names that Step Functions itself gives."""

    ALL = "States.ALL"
    TASK_FAILED = "States.TaskFailed"
    TIMEOUT = "States.Timeout"
    HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"
    DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
    RUNTIME = "States.Runtime"
    NO_CHOICE_MATCHED = "States.NoChoiceMatched"
    RESULT_PATH_MATCH_FAILURE = "States.ResultPathMatchFailure"
    INTRINSIC_FAILURE = "States.IntrinsicFailure"
    QUERY_EVALUATION_ERROR = "States.QueryEvaluationError"


class StateError(Exception):
    """Indicates that a state failed.

    Attributes:
        error: Name, as Retry and Catch match it.
        cause: Text for people, or None.
    """

    def __init__(self, error: str, cause: str | None = None) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = str(error)
        self.cause = cause


class EvaluationError(StateError):
    """Indicates that an expression of the definition cannot be evaluated for this input.

    Attributes:
        location: The field it is in, for the EvaluationFailed event of a JSONata state.
    """

    def __init__(self, error: str, cause: str, location: str | None = None) -> None:
        super().__init__(error, cause)
        self.location = location


def matches(error: str, error_equals: list[str]) -> bool:
    """Tell whether a Retry's or Catch's ErrorEquals matches an error's name."""
    if error == ErrorName.RUNTIME:
        return False
    for name in error_equals:
        if name == error:
            return True
        if name == ErrorName.ALL and error != ErrorName.DATA_LIMIT_EXCEEDED:
            return True
        if name == ErrorName.TASK_FAILED and error not in (ErrorName.TIMEOUT, ErrorName.HEARTBEAT_TIMEOUT, ErrorName.DATA_LIMIT_EXCEEDED):
            return True
        if name == ErrorName.TIMEOUT and error == ErrorName.HEARTBEAT_TIMEOUT:
            return True
    return False
