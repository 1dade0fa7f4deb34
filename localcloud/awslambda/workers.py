"""Worker processes of functions, seen from localcloud: starting, invoking, timing out, reaping. Everything here runs on the background loop.

A worker serves one invocation at a time, as an execution environment of AWS does, and stays warm for the next. Workers are forked from a zygote that has
boto3 imported (a cold start then costs the function's own imports only). macOS cannot safely go on after a fork without exec
(https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods), so there each worker is a process started afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.awslambda import worker as worker_script

if TYPE_CHECKING:
    from localcloud.processes import Supervisor

_FRAME = struct.Struct("!II")
_CHUNK = 1 << 18

#: Workers of one function version at once; more invocations wait. (AWS: 1,000 per account; one machine has fewer processors.)
MAX_WORKERS = 16
#: Seconds that an invocation waits for a busy worker before another is started: most functions are done sooner than a new worker would be.
PATIENCE_SECONDS = 0.05
#: Seconds without an invocation after which a worker ends; AWS ends an idle environment after some minutes.
IDLE_SECONDS = 120.0
#: Seconds that initialisation may take before it counts as part of the invocation
#: (https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html).
INIT_SECONDS = 10.0

LineSink = Callable[[list[str]], None]


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told when it starts.

    Attributes:
        environment: Its whole environment.
        task_root: Folder of the extracted zip; AWS's /var/task.
        path: What comes first on its import path: the task root, then the layers.
        bundled: Packages of AWS's runtime that the zip or a layer brings itself.
        scratch: Folder for temporary files; it goes when the worker goes.
    """

    environment: Mapping[str, str]
    task_root: Path
    path: Sequence[str]
    bundled: Sequence[str]
    scratch: Path


class WorkerExit(Exception):
    """Indicates that a worker's process ended instead of answering.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"worker ended with {code}")
        self.code = code


@dataclass
class Process:
    """A worker's process: its number, and a future of its exit code."""

    pid: int
    exited: asyncio.Future[int]


class Spawner:
    """Starts worker processes."""

    def __init__(self, supervisor: Supervisor, runtime_dir: Path, fork: bool = sys.platform != "darwin") -> None:
        self._supervisor = supervisor
        self._runtime_dir = runtime_dir
        self._fork = fork
        self._zygote: _Zygote | None = None
        self._zygote_lock = asyncio.Lock()

    @property
    def runtime_path(self) -> list[str]:
        """The import path of what AWS's runtime has besides the standard library."""
        return [str(self._runtime_dir)]

    async def prepare(self) -> None:
        """Have the zygote ready, so that the first cold start does not wait for it."""
        if self._fork:
            async with self._zygote_lock:
                await self._running_zygote()

    async def spawn(self, connection: socket.socket, output: int) -> Process:
        """Start a process with its end of a socket and the writing end of its output pipe."""
        if not self._fork:
            return await asyncio.to_thread(self._start_process, connection, output, asyncio.get_running_loop())
        async with self._zygote_lock:
            try:
                return await (await self._running_zygote()).fork(connection, output)
            except _ZygoteEnded:
                # Somebody killed it (an out-of-memory killer, a user): a new one does as well.
                return await (await self._running_zygote()).fork(connection, output)

    async def _running_zygote(self) -> _Zygote:
        if self._zygote is None or self._zygote.ended:
            if self._zygote is not None:
                self._zygote.close()
            self._zygote = _Zygote(self._supervisor, self._runtime_dir)
            await self._zygote.start()
        return self._zygote

    def _start_process(self, connection: socket.socket, output: int, loop: asyncio.AbstractEventLoop) -> Process:
        process = self._supervisor.spawn(
            [sys.executable, "-I", "-S", worker_script.__file__, "runtime", str(connection.fileno())],
            env={"PATH": os.defpath, "LANG": "en_US.UTF-8"},
            stdout=output,
            stderr=output,
            pass_fds=[connection.fileno()],
        )
        exited: asyncio.Future[int] = loop.create_future()

        def tell(code: int) -> None:
            if not exited.done():
                exited.set_result(code)

        def wait() -> None:
            process.wait()
            code = self._supervisor.release(process)
            with contextlib.suppress(RuntimeError):  # the loop is closed: localcloud is stopping
                loop.call_soon_threadsafe(tell, code)

        threading.Thread(target=wait, name=f"lambda-worker-{process.pid}", daemon=True).start()
        return Process(process.pid, exited)

    def kill(self, process: Process) -> None:
        """End a worker and whatever it started."""
        if self._fork:
            self._supervisor.disown(process.pid)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)

    def close(self) -> None:
        """End the zygote."""
        if self._zygote is not None:
            self._zygote.close()


class _ZygoteEnded(RuntimeError):
    """Indicates that the process that workers are forked from is gone."""


class _Zygote:
    def __init__(self, supervisor: Supervisor, runtime_dir: Path) -> None:
        self._supervisor = supervisor
        self._runtime_dir = runtime_dir
        self._lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = False

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._process = self._supervisor.spawn(
                [sys.executable, "-I", "-S", worker_script.__file__, "zygote", str(theirs.fileno()), str(self._runtime_dir)],
                env={"PATH": os.defpath, "LANG": "en_US.UTF-8"},
                cwd=Path("/"),
                pass_fds=[theirs.fileno()],
            )
        self._loop.add_reader(self._control, self._read)
        await self._reply("ready")

    async def fork(self, connection: socket.socket, output: int) -> Process:
        try:
            socket.send_fds(self._control, [b"f"], [connection.fileno(), output])
        except (BrokenPipeError, ConnectionResetError) as error:
            self.ended = True
            raise _ZygoteEnded from error
        pid = (await self._reply("forked"))["forked"]
        self._supervisor.adopt(pid)
        return Process(pid, self._exits.setdefault(pid, self._loop.create_future()))

    async def _reply(self, key: str) -> dict[str, Any]:
        message = await self._lines.get()
        if key not in message:
            raise _ZygoteEnded("the process that Lambda workers are forked from ended; see localcloud's log")
        return message

    def _read(self) -> None:
        try:
            chunk = self._control.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.ended = True
            self._loop.remove_reader(self._control)
            self._lines.put_nowait({})
            for future in self._exits.values():
                if not future.done():
                    future.set_result(-9)
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "exited" in message:
                future = self._exits.pop(message["exited"])
                if not future.done():
                    future.set_result(message["code"])
                self._supervisor.disown(message["exited"])
            else:
                if "forked" in message:
                    # The future must be there before an exit that follows on its heels.
                    self._exits.setdefault(message["forked"], self._loop.create_future())
                self._lines.put_nowait(message)

    def close(self) -> None:
        self.ended = True
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._process is not None:
            self._supervisor.release(self._process)


class Worker:
    """One worker process."""

    def __init__(self, settings: WorkerSettings, log_stream: str) -> None:
        self.settings = settings
        self.log_stream = log_stream
        self.idle_since = 0.0
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._sink: LineSink | None = None
        self._pending_output = b""
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[dict[str, Any], bytes]] | None = None
        self._process: Process | None = None

    async def start(self, spawner: Spawner, sink: LineSink) -> None:
        """Start the process and send its configuration; `initialised` tells how its initialisation went."""
        self._spawner = spawner
        self._sink = sink
        self.settings.scratch.mkdir(parents=True, exist_ok=True)
        self._connection, theirs = socket.socketpair()
        self._output, output_writer = os.pipe()
        self._connection.setblocking(False)
        os.set_blocking(self._output, False)
        try:
            self._process = await spawner.spawn(theirs, output_writer)
        except BaseException:
            self._connection.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
            os.close(output_writer)
        self._loop.add_reader(self._connection, self._on_frame_data)
        self._loop.add_reader(self._output, self._on_output)
        configuration = {
            "environment": dict(self.settings.environment),
            "task_root": str(self.settings.task_root),
            "path": list(self.settings.path),
            "runtime_path": spawner.runtime_path,
            "bundled": list(self.settings.bundled),
        }
        self._answer = self._loop.create_future()
        self._process.exited.add_done_callback(self._on_exit)
        await self._send(configuration, b"")

    async def initialised(self) -> dict[str, Any]:
        """Wait for the end of the initialisation and return the worker's report: ``error`` (an error document or None) and ``init_ms``.

        Raises:
            WorkerExit: It ended during initialisation.
        """
        return (await self._receive())[0]

    async def invoke(self, request: dict[str, Any], payload: bytes, sink: LineSink) -> tuple[dict[str, Any], bytes]:
        """Let it handle one request; lines that it prints go to *sink* as they come.

        Raises:
            WorkerExit: It ended before it answered.
        """
        assert self._process is not None
        if self._process.exited.done():
            raise WorkerExit(self._process.exited.result())
        self._sink = sink
        self._answer = self._loop.create_future()
        await self._send(request, payload)
        return await self._receive()

    def finish_output(self) -> None:
        """Hand over what it printed last; afterwards its output waits for the next invocation."""
        if self._process is None:
            return
        self._on_output()
        if self._pending_output and self._sink is not None:
            self._sink(_lines(self._pending_output))
            self._pending_output = b""
        self._sink = None

    def close(self) -> None:
        """End the process and whatever it started."""
        if self.closed:
            return
        self.closed = True
        if self._process is None:
            return
        self._loop.remove_reader(self._connection)
        self._loop.remove_reader(self._output)
        self._spawner.kill(self._process)
        self._connection.close()
        os.close(self._output)
        shutil.rmtree(self.settings.scratch, ignore_errors=True)
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and not self.closed and not self._process.exited.done()

    @property
    def started(self) -> bool:
        """Whether it has a process, or had one."""
        return self._process is not None

    async def _send(self, header: dict[str, Any], body: bytes) -> None:
        encoded = json.dumps(header).encode()
        # A worker that is gone cannot be written to; waiting for its answer tells how it ended.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._loop.sock_sendall(self._connection, _FRAME.pack(len(encoded), len(body)) + encoded + body)

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        assert self._answer is not None
        return await self._answer

    def _on_exit(self, exited: asyncio.Future[int]) -> None:
        if self.closed:
            return
        # What it wrote before it ended is still in the socket.
        self._on_frame_data()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WorkerExit(exited.result()))

    def _on_frame_data(self) -> None:
        while True:
            try:
                chunk = self._connection.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                chunk = b""
            if not chunk:
                self._loop.remove_reader(self._connection)
                break
            self._buffer += chunk
            if len(chunk) < _CHUNK:
                break
        if len(self._buffer) < _FRAME.size:
            return
        header_size, body_size = _FRAME.unpack_from(self._buffer)
        end = _FRAME.size + header_size + body_size
        if len(self._buffer) < end or self._answer is None or self._answer.done():
            return
        header = json.loads(self._buffer[_FRAME.size : _FRAME.size + header_size])
        body = bytes(self._buffer[_FRAME.size + header_size : end])
        del self._buffer[:end]
        self._answer.set_result((header, body))

    def _on_output(self) -> None:
        while True:
            try:
                chunk = os.read(self._output, _CHUNK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                chunk = b""
            if not chunk:
                self._loop.remove_reader(self._output)
                break
            self._pending_output += chunk
        if self._sink is not None and b"\n" in self._pending_output:
            complete, _, self._pending_output = self._pending_output.rpartition(b"\n")
            self._sink(_lines(complete))


def _lines(output: bytes) -> list[str]:
    # A carriage return is a line end inside one log event, as on AWS.
    return [line.replace("\r", "\n") for line in output.decode("utf-8", "backslashreplace").split("\n")]


class WorkerPool:
    """The workers of one function version, started when they are needed."""

    def __init__(self, new_worker: Callable[[], Worker], limit: int = MAX_WORKERS) -> None:
        self._new_worker = new_worker
        self._limit = limit
        self._idle: list[Worker] = []
        self._count = 0
        self._waiting: deque[asyncio.Future[Worker | None]] = deque()
        self._closed = False

    async def acquire(self) -> Worker:
        """Return a worker for one invocation: a warm one, a new one that is not `started` yet, or the next that becomes free."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            self._discard(worker)
        if self._count == 0:
            return self._added()
        future: asyncio.Future[Worker | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            if self._count < self._limit:
                await asyncio.wait({future}, timeout=PATIENCE_SECONDS)
                if not future.done() and self._count < self._limit:
                    self._waiting.remove(future)
                    return self._added()
            worker_or_slot = await future
        except asyncio.CancelledError:
            if future in self._waiting:
                self._waiting.remove(future)
            elif not future.cancelled():
                given = future.result()
                self._wake(None) if given is None else self.release(given)
            raise
        return self._added() if worker_or_slot is None else worker_or_slot

    def _added(self) -> Worker:
        self._count += 1
        return self._new_worker()

    def release(self, worker: Worker, reusable: bool = True) -> None:
        """Give a worker back after an invocation."""
        if self._closed or not reusable or not worker.alive:
            self._discard(worker)
            self._wake(None)
            return
        worker.idle_since = time.monotonic()
        if not self._wake(worker):
            self._idle.append(worker)

    def reap(self, idle_seconds: float) -> None:
        """End workers that had nothing to do for so long."""
        limit = time.monotonic() - idle_seconds
        for worker in [worker for worker in self._idle if worker.idle_since < limit or not worker.alive]:
            self._idle.remove(worker)
            self._discard(worker)

    def close(self) -> None:
        """End idle workers now and busy ones when they are given back."""
        self._closed = True
        while self._idle:
            self._discard(self._idle.pop())

    @property
    def empty(self) -> bool:
        """Whether it has no workers."""
        return self._count == 0

    def _discard(self, worker: Worker) -> None:
        self._count -= 1
        worker.close()

    def _wake(self, worker: Worker | None) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(worker)
                return True
        return False
