"""What AWS/SQS tells of queues, measured by looking at moto's queues."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from moto.sqs.models import sqs_backends

from localcloud.cloudwatch.records import ServiceMetrics

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


def measure_queues(cloud: Cloud, metrics: ServiceMetrics) -> None:
    """Add a sample of every queue."""
    backend = sqs_backends[cloud.settings.account_id][cloud.settings.region]
    present = time.time()
    for queue in list(backend.queues.values()):
        kept = list(queue._messages)
        waiting = [message for message in kept if message.visible and not message.delayed]
        delayed = sum(message.delayed for message in kept)
        # Milliseconds since 1970.
        sent = [float(message.sent_timestamp or 0) / 1000 for message in kept]
        oldest = min(sent, default=present)
        metrics.queue(queue.name, len(waiting), len(kept) - len(waiting) - delayed, delayed, max(0.0, present - oldest))
