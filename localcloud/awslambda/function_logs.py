"""What Lambda writes to a function's log group around and during an invocation, in AWS's text and JSON formats.

Formats: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html and https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html.
"""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.awslambda.functions import FunctionVersion
from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.logs import LogWriter

#: Bytes of the log that Invoke returns with LogType=Tail.
TAIL_BYTES = 4096


class LogShipper:
    """Writes lines to CloudWatch Logs from a thread of its own, so that no invocation waits for it."""

    def __init__(self, logs: LogWriter) -> None:
        self._logs = logs
        self._queue: queue.SimpleQueue[tuple[FunctionVersion, str, list[str]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lambda-logs", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end."""
        self._queue.put(None)
        self._thread.join()

    def write(self, version: FunctionVersion, stream: str, lines: list[str]) -> None:
        """Write a function's lines soon, in order."""
        self._queue.put((version, stream, lines))

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            if entry is None:
                return
            version, stream, lines = entry
            session = RoleSession(version.configuration["Role"], version.name)
            self._logs.write(version.log_group, stream, *lines, session=session)


@dataclass(frozen=True)
class Report:
    """The figures of the REPORT line.

    Attributes:
        duration_ms: Of the handler.
        memory_mb: Largest resident memory of the worker so far.
        init_ms: Of the initialisation, when this invocation had one.
        status: ``success``, ``error`` or ``timeout``.
        error_type: The runtime's name of the error, when the process ended or did not start.
    """

    duration_ms: float
    memory_mb: int
    init_ms: float | None
    status: str
    error_type: str | None = None


class InvocationLog:
    """The log of one invocation."""

    def __init__(
        self, write: Callable[[FunctionVersion, str, list[str]], None], version: FunctionVersion, stream: str, request_id: str
    ) -> None:
        self._write = write
        self._version = version
        self._stream = stream
        self._request_id = request_id
        self._lines: list[str] = []

    def lines(self, lines: list[str]) -> None:
        """Write what the function printed."""
        self._lines += lines
        self._write(self._version, self._stream, lines)

    def start(self) -> None:
        """Write the START line."""
        if self._version.json_logs:
            self._platform("platform.start", {"requestId": self._request_id, "version": self._version.version})
        else:
            self.lines([f"START RequestId: {self._request_id} Version: {self._version.version}"])

    def error(self, error: dict[str, Any]) -> None:
        """Write an error document as the runtime does."""
        if self._version.json_logs:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.lines([json.dumps({"timestamp": stamp, "level": "ERROR", **error}, ensure_ascii=False)])
            return
        trace = "".join(entry if entry.endswith("\n") else entry + "\n" for entry in error["stackTrace"])
        self.lines([f"[ERROR] {error['errorType']}: {error['errorMessage']}\nTraceback (most recent call last):\n{trace}".rstrip("\n")])

    def end(self, report: Report) -> None:
        """Write the END and REPORT lines."""
        billed, memory = math.ceil(report.duration_ms), self._version.configuration["MemorySize"]
        if self._version.json_logs:
            metrics: dict[str, Any] = {
                "durationMs": round(report.duration_ms, 3),
                "billedDurationMs": billed,
                "memorySizeMB": memory,
                "maxMemoryUsedMB": report.memory_mb,
            }
            if report.init_ms is not None:
                metrics["initDurationMs"] = round(report.init_ms, 3)
            record = {"requestId": self._request_id, "metrics": metrics, "status": report.status}
            self._platform("platform.report", record | ({"errorType": report.error_type} if report.error_type else {}))
            return
        parts = [
            f"REPORT RequestId: {self._request_id}",
            f"Duration: {report.duration_ms:.2f} ms",
            f"Billed Duration: {billed} ms",
            f"Memory Size: {memory} MB",
            f"Max Memory Used: {report.memory_mb} MB",
        ]
        if report.init_ms is not None:
            parts.append(f"Init Duration: {report.init_ms:.2f} ms")
        if report.status != "success":
            parts.append(f"Status: {report.status}")
        if report.error_type:
            parts.append(f"Error Type: {report.error_type}")
        self.lines([f"END RequestId: {self._request_id}", "\t".join(parts) + "\t"])

    def tail(self) -> bytes:
        """Return the last 4 KB."""
        return "".join(line + "\n" for line in self._lines).encode()[-TAIL_BYTES:]

    def _platform(self, kind: str, record: dict[str, Any]) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.lines([json.dumps({"time": stamp, "type": kind, "record": record})])
