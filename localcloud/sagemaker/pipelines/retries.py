"""Retry policies: whether a failed attempt is followed by another, and after how many seconds.

Semantics: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from localcloud.sagemaker.pipelines.definition import ExceptionType, RetryPolicy

#: Service faults and throttling are retried without a policy, too. AWS does not say how often.
DEFAULT_POLICY = RetryPolicy(frozenset({ExceptionType.SERVICE_FAULT, ExceptionType.THROTTLING}), 1.0, 2.0, max_attempts=2)
#: The number of retries of a policy that names neither MaxAttempts nor ExpireAfterMin.
DEFAULT_MAX_ATTEMPTS = 5

_THROTTLING_CODES = ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded")
_FAULT_CODES = ("InternalFailure", "InternalServerError", "InternalServerException", "ServiceUnavailable", "ServiceUnavailableException")


def classify_code(code: str) -> ExceptionType | None:
    """Return the exception type of a service's error code, or None for one that a retry would not mend."""
    if code in _THROTTLING_CODES:
        return ExceptionType.THROTTLING
    if code in _FAULT_CODES:
        return ExceptionType.SERVICE_FAULT
    return ExceptionType.RESOURCE_LIMIT if code == "ResourceLimitExceeded" else None


def classify_reason(reason: str) -> ExceptionType | None:
    """Return the exception type of a job's FailureReason, or None for one that a retry would not mend."""
    if reason.startswith("InternalServerError"):
        return ExceptionType.JOB_INTERNAL_ERROR
    if reason.startswith(("CapacityError", "InsufficientCapacityError")):
        return ExceptionType.CAPACITY_ERROR
    return ExceptionType.RESOURCE_LIMIT if reason.startswith("ResourceLimitExceeded") else None


@dataclass
class Retries:
    """The retries of one step.

    Attributes:
        policies: The step's policies; the first that names an exception type decides, the default only where none does.
    """

    policies: Sequence[RetryPolicy]
    _used: dict[int, int] = field(default_factory=dict)
    _first: dict[int, float] = field(default_factory=dict)

    def next_delay(self, exception: ExceptionType | None, now: float) -> float | None:
        """Count a failed attempt and return the seconds to wait before the next one, or None when there is to be none.

        Args:
            exception: Why the attempt failed.
            now: A clock in seconds.
        """
        policies = (*self.policies, DEFAULT_POLICY)
        index = next((i for i, policy in enumerate(policies) if exception in policy.exception_types), None)
        if index is None:
            return None
        policy = policies[index]
        used = self._used.get(index, 0)
        first = self._first.setdefault(index, now)
        limit = policy.max_attempts
        if limit is None and policy.expire_after_min is None:
            limit = DEFAULT_MAX_ATTEMPTS
        delay = policy.interval_seconds * policy.backoff_rate**used
        expired = policy.expire_after_min is not None and now + delay - first > policy.expire_after_min * 60
        if (limit is not None and used >= limit) or expired:
            return None
        self._used[index] = used + 1
        return delay
