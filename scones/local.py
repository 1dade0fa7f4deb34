"""Starting, finding and ending the clone's localcloud process."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scones.errors import ExitCode, SconesError
from scones.folders import check_writable

HOST = "127.0.0.1"
START_SECONDS = 30.0
#: A build that is broken off leaves a virtual environment with tens of thousands of files, which are removed first.
STOP_SECONDS = 60.0
_LEAST_FREE_BYTES = 1_000_000


@dataclass(frozen=True)
class Running:
    """A localcloud process that answers."""

    pid: int
    port: int
    endpoint_url: str
    state_dir: Path


def cloud_dir(state_dir: Path) -> Path:
    """Return localcloud's own folder below a state folder."""
    return state_dir / "localcloud"


def has_state(folder: Path) -> bool:
    """Return whether localcloud kept state in its folder, which it goes on from when it starts."""
    return (folder / "localcloud.db").exists()


def find_running(state_dir: Path) -> Running | None:
    """Return the localcloud that uses the state folder and answers, or None (also when a killed one left its file behind)."""
    folder = cloud_dir(state_dir)
    try:
        status = json.loads((folder / "running.json").read_text())
        running = Running(int(status["pid"]), int(status["port"]), status["endpoint_url"], state_dir)
    except (OSError, ValueError, KeyError):
        return None
    health = _health(running.port)
    return running if health is not None and health.get("state_dir") == str(folder.resolve()) else None


def prepare(state_dir: Path) -> Path:
    """Make localcloud's own folder below a state folder and return it.

    Raises:
        SconesError: Nothing can be written there.
    """
    folder = cloud_dir(state_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "localcloud.log").open("ab").close()
    except OSError as error:
        raise _unwritable(state_dir, error) from error
    return folder


def check(state_dir: Path) -> None:
    """Check that localcloud's own folder can be made and written, as far as that is known before.

    Raises:
        SconesError: It cannot.
    """
    try:
        check_writable(cloud_dir(state_dir))
    except OSError as error:
        raise _unwritable(state_dir, error) from error


def _unwritable(state_dir: Path, error: OSError) -> SconesError:
    return SconesError(
        f"The state folder {state_dir} cannot be written: {error.strerror}", "Name another with --state-dir.", ExitCode.USAGE
    )


def arguments(folder: Path, port: int, time_scale: float | None) -> list[str]:
    """Return localcloud's command line."""
    scale = [] if time_scale is None else ["--time-scale", str(time_scale)]
    return ["--port", str(port), "--state-dir", str(folder), *scale]


def start(state_dir: Path, port: int | None = None, *, time_scale: float | None = None, console: bool = False) -> Running:
    """Start localcloud in the background and return when it answers; of two commands that do so at once the second takes the first's.

    Args:
        state_dir: The state folder.
        port: TCP port; None takes the one of last time if it is free (so that a shell's AWS_ENDPOINT_URL stays right), else any.
        time_scale: How many times faster than on AWS the waits of deployments pass; None takes localcloud's default.
        console: Whether job and function logs go to localcloud's log file too.

    Raises:
        SconesError: It did not start; the message has localcloud's own reason.
    """
    folder = prepare(state_dir)
    with (folder / "start.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find_running(state_dir) or _start(folder, state_dir, port, time_scale, console)


def _start(folder: Path, state_dir: Path, port: int | None, time_scale: float | None, console: bool) -> Running:
    log = (folder / "localcloud.log").open("ab")
    chosen = port if port is not None else last_port(folder)
    command = [sys.executable, "-m", "localcloud", *arguments(folder, chosen, time_scale)]
    with log:
        began = log.tell()
        process = subprocess.Popen(
            command if console else [*command, "--quiet"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        running = find_running(state_dir)
        if running is not None:
            (folder / "port").write_text(str(running.port))
            return running
        if process.poll() is not None:
            code = ExitCode.USAGE if process.returncode == ExitCode.USAGE else ExitCode.UNREACHABLE
            raise SconesError(_last_line(folder / "localcloud.log", began), exit_code=code)
        time.sleep(0.05)
    process.kill()
    raise SconesError(
        f"localcloud did not answer within {START_SECONDS:.0f} s", f"Its log: {folder / 'localcloud.log'}", ExitCode.UNREACHABLE
    )


def stop(running: Running) -> None:
    """End localcloud and everything it started; return when it is gone.

    Raises:
        SconesError: It does not end.
    """
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if _health(running.port) is None and not _alive(running.pid):
            return
        time.sleep(0.05)
    raise SconesError(f"localcloud (process {running.pid}) did not end within {STOP_SECONDS:.0f} s", f"End it with: kill -9 {running.pid}")


def _alive(pid: int) -> bool:
    try:
        finished, _ = os.waitpid(pid, os.WNOHANG)  # our own child would stay a zombie
        if finished == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _health(port: int) -> dict[str, str] | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/_localcloud/health")
        health: dict[str, str] = json.loads(connection.getresponse().read())
        return health
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def last_port(folder: Path) -> int:
    """Return the port that localcloud had last time in its folder if it is free, else 0."""
    try:
        port = int((folder / "port").read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 and is_free(port) else 0


def is_free(port: int) -> bool:
    """Return whether a server could listen on a TCP port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _last_line(log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return lines[-1]
    why = "the disk is full" if shutil.disk_usage(log.parent).free < _LEAST_FREE_BYTES else "its log is empty"
    return f"localcloud ended at once; {why} ({log})"
