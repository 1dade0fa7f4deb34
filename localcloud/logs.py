"""Job, function and endpoint output, in CloudWatch Logs under AWS's group names and on the console."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from moto.logs.models import LogsBackend, logs_backends

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

console = logging.getLogger("localcloud.console")


class LogWriter:
    """Writes lines to CloudWatch Logs, making groups and streams as services do on AWS."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()

    @property
    def _backend(self) -> LogsBackend:
        settings = self._cloud.settings
        return logs_backends[settings.account_id][settings.region]

    def write(self, group: str, stream: str, *lines: str) -> None:
        """Append lines (without line ends) to a stream, e.g. group ``/aws/sagemaker/TrainingJobs``."""
        if not lines:
            return
        now = int(time.time() * 1000)
        backend = self._backend
        with self._lock:
            if group not in backend.groups:
                backend.create_log_group(group, {})
            if stream not in backend.groups[group].streams:
                backend.create_log_stream(group, stream)
            # CloudWatch Logs refuses empty messages; a blank line is kept as a space.
            backend.put_log_events(group, stream, [{"timestamp": now, "message": line or " "} for line in lines])
        self._cloud.mark_dirty("logs")
        if self._cloud.settings.console:
            for line in lines:
                console.info("%s | %s", stream, line)
