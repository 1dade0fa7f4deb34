"""SetQueueAttributes of SQS without a Policy leaves the queue's policy as it is; moto takes it away.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
Held by tests/integration/test_scones_drift.py.
"""

from __future__ import annotations

from typing import Any

from moto.sqs.models import Queue, SQSBackend

_SET = SQSBackend.set_queue_attributes


def keep_queue_policies() -> None:
    """Let SQS keep policies that a request does not name; doing it again does nothing."""
    setattr(SQSBackend, "set_queue_attributes", _set)  # noqa: B010  # mypy takes no assignment to a method


def _set(backend: SQSBackend, queue_name: str, attributes: dict[str, Any]) -> Queue:
    return _SET(backend, queue_name, {"Policy": backend.get_queue(queue_name).policy} | attributes)
