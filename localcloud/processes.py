"""Child processes that never outlive localcloud: jobs, Lambda workers, model servers.

Each child leads a process group of its own. A watchdog process holds the reading end of a pipe whose writing end only localcloud has: when localcloud goes,
however it goes (kill -9 included), the pipe closes and the watchdog kills every group that is still listed. That works on every POSIX system, and unlike
PR_SET_PDEATHSIG it reaches grandchildren and does not fire when a mere thread ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_WATCHDOG = """
import os, signal, sys
for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(sig, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    pid = int(line[1:])
    groups.add(pid) if line[0] == "+" else groups.discard(pid)
for pid in groups:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
"""


class Supervisor:
    """Starts and ends child processes; `stop` ends all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, subprocess.Popen[Any]] = {}
        self._adopted: set[int] = set()
        self._stopped = False
        self._watchdog = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _WATCHDOG], stdin=subprocess.PIPE, text=True, start_new_session=True, cwd="/"
        )

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a child in its own process group (bytes streams). Call `release` when it has ended.

        Raises:
            OSError: The program cannot be started.
            RuntimeError: localcloud is stopping.
        """
        with self._lock:
            if self._stopped:
                raise RuntimeError("localcloud is stopping")
            process: subprocess.Popen[bytes] = subprocess.Popen(
                list(command), env=dict(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, start_new_session=True
            )
            self._children[process.pid] = process
            self._tell("+", process.pid)
        return process

    def release(self, process: subprocess.Popen[Any], grace: float = 0.0) -> int:
        """End a child and whatever is left of its process group; return its exit code (negative: the signal).

        Args:
            process: What `spawn` returned; it may have ended already.
            grace: Seconds between SIGTERM and SIGKILL; 0 kills at once.
        """
        if process.poll() is None and grace > 0:
            _kill_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        # Also after a normal end: a job may have left processes of its own behind.
        _kill_group(process.pid, signal.SIGKILL)
        code = process.wait()
        with self._lock:
            if self._children.pop(process.pid, None) is not None and not self._stopped:
                self._tell("-", process.pid)
        return code

    def adopt(self, pid: int) -> None:
        """Take charge of a process group that a child of ours started (a forked Lambda worker): it dies with localcloud as well. `disown` ends it."""
        with self._lock:
            if self._stopped:
                _kill_group(pid, signal.SIGKILL)
                return
            self._adopted.add(pid)
            self._tell("+", pid)

    def disown(self, pid: int) -> None:
        """Kill what is left of an adopted process group and forget it; its parent reaps it. Call once, before its number can be given to another."""
        with self._lock:
            if pid not in self._adopted:
                return
            self._adopted.discard(pid)
            if not self._stopped:
                self._tell("-", pid)
        _kill_group(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill every child's group and the watchdog. No child can be started afterwards."""
        with self._lock:
            self._stopped = True
            children = list(self._children.values())
            adopted = list(self._adopted)
        for pid in adopted:
            _kill_group(pid, signal.SIGKILL)
        for process in children:
            _kill_group(process.pid, signal.SIGKILL)
        for process in children:
            process.wait()
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()

    def _tell(self, sign: str, pid: int) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{sign}{pid}\n")
        self._watchdog.stdin.flush()


def _kill_group(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(pid, sig)
