"""Job, function and endpoint output, in CloudWatch Logs under AWS's group names and on the console."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moto.logs.models import LogsBackend, logs_backends

from localcloud.errors import ServiceError
from localcloud.iam.needs import Need
from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)
console = logging.getLogger("localcloud.console")


class LogWriter:
    """Writes lines to CloudWatch Logs, making groups and streams as services do on AWS."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._refused: set[str] = set()

    @property
    def _backend(self) -> LogsBackend:
        settings = self._cloud.settings
        return logs_backends[settings.account_id][settings.region]

    def write(self, group: str, stream: str, *lines: str, session: RoleSession | None = None) -> None:
        """Append lines (without line ends) to a stream, e.g. group ``/aws/sagemaker/TrainingJobs``.

        Args:
            group: The log group.
            stream: The log stream.
            lines: The lines.
            session: The role with which they are written; what it may not write is lost but for the console, as on AWS.
        """
        if not lines:
            return
        if session is not None and not self._may_write(session, group, stream):
            self._print(stream, lines)
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
        self._print(stream, lines)

    def _may_write(self, session: RoleSession, group: str, stream: str) -> bool:
        found = self._backend.groups.get(group)
        arn = self._cloud.arn("logs", f"log-group:{group}:log-stream:")
        needs = [Need("logs:PutLogEvents", arn + stream)]
        if found is None or stream not in found.streams:
            needs.insert(0, Need("logs:CreateLogStream", arn + stream))
        if found is None:
            needs.insert(0, Need("logs:CreateLogGroup", arn))
        try:
            for need in needs:
                self._cloud.iam.check(session, need)
        except ServiceError as error:
            if stream not in self._refused:
                self._refused.add(stream)
                log.warning("The log of %s is not kept: %s", stream, error.message)
            return False
        return True

    def _print(self, stream: str, lines: Sequence[str]) -> None:
        if self._cloud.settings.console:
            for line in lines:
                console.info("%s | %s", stream, line)
