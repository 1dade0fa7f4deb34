"""Starts and stops a region: state, services, HTTP server on 127.0.0.1, and the file that tells where it listens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import IO

from cheroot import wsgi

from localcloud.cloud import Cloud
from localcloud.errors import LocalCloudError
from localcloud.gateway import Gateway
from localcloud.settings import HOST, CloudSettings

log = logging.getLogger(__name__)

#: Requests answered at once. A workflow holds one per nested call (execution → function → endpoint), so that few would deadlock.
THREADS = 96
RUNNING_FILE = "running.json"

# AWS answers every service's validation errors with ValidationException, whether or not the service's model lists it; moto warns of each.
warnings.filterwarnings("ignore", message=".*does not match an error shape.*", category=UserWarning)


class Server:
    """One region with its HTTP server. Use as a context manager, or `start` and `stop`.

    Raises:
        LocalCloudError: The port is taken, the state folder cannot be used, or another process uses it.
    """

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self._stop_requested = threading.Event()
        self._lock_file = _lock(settings.state_dir)
        try:
            self.cloud = Cloud(settings)
        except BaseException:
            self._lock_file.close()
            raise
        gateway = Gateway(self.cloud, self._stop_requested.set)
        self._http = wsgi.Server((HOST, settings.port), gateway, numthreads=THREADS, request_queue_size=256, timeout=900)
        self._http.error_log = _log_http_error  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._http.serve, name="http", daemon=True)

    def start(self) -> None:
        """Bind the port, load the state, start answering."""
        try:
            self._http.prepare()
        except OSError as error:
            self.cloud.processes.stop()
            self._lock_file.close()
            raise LocalCloudError(
                f"Port {self.settings.port} on {HOST} cannot be used: it is taken. Choose another with --port."
            ) from error
        # cheroot leaves this out on a port that the system picked; without it the next process could not have the port again for a minute.
        self._http.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.cloud.port = self._http.bind_addr[1]
        try:
            self.cloud.start()
        except BaseException:
            # The threads that are there by now would keep the process alive.
            self._http.stop()
            self.cloud.background.stop()
            self.cloud.processes.stop()
            self._lock_file.close()
            raise
        self._thread.start()
        status = {"pid": os.getpid(), "port": self.cloud.port, "endpoint_url": self.cloud.endpoint_url}
        temporary = self.settings.state_dir / (RUNNING_FILE + ".new")
        temporary.write_text(json.dumps(status))
        temporary.replace(self.settings.state_dir / RUNNING_FILE)

    def wait(self) -> None:
        """Return when SIGTERM, SIGINT or the stop request came."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop_requested.set())
        self._stop_requested.wait()

    def stop(self) -> None:
        """Stop answering, end every child process, save the state."""
        (self.settings.state_dir / RUNNING_FILE).unlink(missing_ok=True)
        try:
            self.cloud.stop()
        finally:
            self._http.stop()
            self._lock_file.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _lock(state_dir: Path) -> IO[str]:
    """Take the state folder for this process; the lock ends with the process, however it ends."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = (state_dir / "lock").open("w")
    except OSError as error:
        raise LocalCloudError(
            f"The state folder {state_dir} cannot be written: {error.strerror}. Choose another with --state-dir."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LocalCloudError(
            f"Another localcloud already uses the state folder {state_dir}; end it first, or choose another with --state-dir."
        ) from error
    return file


def _log_http_error(msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    with contextlib.suppress(ValueError):
        log.log(level, msg, exc_info=traceback)
