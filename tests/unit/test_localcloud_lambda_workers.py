"""Worker processes and pools of them: both ways to start them, crashes, a killed zygote, limits."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from localcloud.awslambda.code import CodeStore
from localcloud.awslambda.workers import Spawner, Worker, WorkerExit, WorkerPool, WorkerSettings
from localcloud.processes import Supervisor
from localcloud.settings import CloudSettings

ECHO = "import os\ndef handler(event, context):\n    print('seen', event)\n    return [event, os.getpid(), os.environ['NAME']]"


class Bench:
    """A place to run workers in."""

    def __init__(self, folder: Path, spawner: Spawner) -> None:
        self.folder = folder
        self.spawner = spawner
        self.lines: list[str] = []
        self._count = 0

    def worker(self, code: str) -> Worker:
        """Return a worker that is not started yet."""
        self._count += 1
        root = self.folder / f"task{self._count}"
        root.mkdir()
        (root / "app.py").write_text(code)
        environment = {"_HANDLER": "app.handler", "NAME": "value", "LAMBDA_TASK_ROOT": str(root), "TMPDIR": str(self.folder / "tmp")}
        return Worker(WorkerSettings(environment, root, [str(root)], [], self.folder / f"scratch{self._count}"), "stream")

    async def started(self, code: str) -> Worker:
        """Return a worker whose initialisation went well."""
        worker = self.worker(code)
        await worker.start(self.spawner, self.lines.extend)
        assert (await worker.initialised())["error"] is None
        worker.finish_output()
        return worker

    async def invoke(self, worker: Worker, payload: bytes) -> bytes:
        """Invoke a worker and return its result."""
        request = {"request_id": "r", "arn": "a", "deadline_ms": 0, "client_context": None}
        answer, body = await worker.invoke(request, payload, self.lines.extend)
        worker.finish_output()
        assert answer["error"] is None
        return body


@asynccontextmanager
async def bench(folder: Path, fork: bool) -> AsyncIterator[Bench]:
    store = CodeStore(_Cloud(folder))  # type: ignore[arg-type]
    store.prepare_runtime()
    supervisor = Supervisor()
    spawner = Spawner(supervisor, store.runtime_dir, fork=fork)
    try:
        yield Bench(folder, spawner)
    finally:
        spawner.close()
        supervisor.stop()


class _Cloud:
    def __init__(self, folder: Path) -> None:
        self.settings = CloudSettings(folder)


def run(folder: Path, work: Callable[[Bench], Coroutine[Any, Any, None]], fork: bool = True) -> None:
    async def inside() -> None:
        async with bench(folder, fork) as place:
            await asyncio.wait_for(work(place), 60)

    asyncio.run(inside())


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started afresh"])
def test_a_worker_answers_prints_and_ends(tmp_path: Path, fork: bool) -> None:
    async def work(place: Bench) -> None:
        worker = await place.started(ECHO)
        first, second = await place.invoke(worker, b'{"a": 1}'), await place.invoke(worker, b"2")
        assert first.startswith(b'[{"a": 1}, ')
        assert b'"value"]' in second
        assert place.lines == ["seen {'a': 1}", "seen 2"]
        pid = int(first.split(b",")[-2])
        worker.close()
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                break
            await asyncio.sleep(0.01)
        assert not worker.settings.scratch.exists()

    run(tmp_path, work, fork)


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started afresh"])
def test_a_worker_that_ends_tells_how(tmp_path: Path, fork: bool) -> None:
    async def work(place: Bench) -> None:
        worker = await place.started("import os\ndef handler(event, context):\n    print('last words')\n    os._exit(7)")
        with pytest.raises(WorkerExit) as caught:
            await place.invoke(worker, b"{}")
        worker.finish_output()
        assert caught.value.code == 7
        assert place.lines == ["last words"]
        assert not worker.alive
        with pytest.raises(WorkerExit):
            await place.invoke(worker, b"{}")
        worker.close()

    run(tmp_path, work, fork)


def test_a_large_payload_goes_both_ways(tmp_path: Path) -> None:
    async def work(place: Bench) -> None:
        worker = await place.started("def handler(event, context): return event")
        payload = b'"' + b"x" * 6_000_000 + b'"'
        assert await place.invoke(worker, payload) == payload
        worker.close()

    run(tmp_path, work)


def test_more_output_than_a_pipe_holds_does_not_block_the_function(tmp_path: Path) -> None:
    async def work(place: Bench) -> None:
        worker = await place.started("def handler(event, context):\n    for number in range(5000): print(number, 'x' * 100)")
        await place.invoke(worker, b"{}")
        assert len(place.lines) == 5000
        worker.close()

    run(tmp_path, work)


def test_a_killed_zygote_is_replaced(tmp_path: Path) -> None:
    async def work(place: Bench) -> None:
        worker = await place.started(ECHO)
        assert place.spawner._zygote is not None
        assert place.spawner._zygote._process is not None
        os.kill(place.spawner._zygote._process.pid, signal.SIGKILL)
        another = await place.started(ECHO)
        assert await place.invoke(another, b"1")
        worker.close()
        another.close()

    run(tmp_path, work)


def test_a_worker_that_is_free_soon_saves_starting_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(place: Bench) -> None:
        pool = WorkerPool(lambda: place.worker(ECHO))
        worker = await pool.acquire()
        await worker.start(place.spawner, place.lines.extend)
        await worker.initialised()
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(worker)
        assert await waiting is worker
        monkeypatch.setattr("localcloud.awslambda.workers.PATIENCE_SECONDS", 0.0)
        assert await pool.acquire() is not worker
        pool.release(worker, reusable=False)

    monkeypatch.setattr("localcloud.awslambda.workers.PATIENCE_SECONDS", 60.0)
    run(tmp_path, work)


def test_a_pool_keeps_warm_workers_and_starts_no_more_than_its_limit(tmp_path: Path) -> None:
    async def work(place: Bench) -> None:
        pool = WorkerPool(lambda: place.worker(ECHO), limit=2)
        first, second = await pool.acquire(), await pool.acquire()
        for worker in (first, second):
            await worker.start(place.spawner, place.lines.extend)
            await worker.initialised()
        third = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        assert not third.done()
        pool.release(first)
        assert await third is first
        # A worker that cannot be used again makes room for a new one.
        fourth = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(second, reusable=False)
        fresh = await fourth
        assert not fresh.started
        assert not second.alive
        pool.release(first)
        pool.reap(0)
        assert not first.alive
        pool.release(fresh, reusable=False)
        assert pool.empty

    run(tmp_path, work)


def test_who_gives_up_waiting_for_a_worker_leaves_it_to_the_next(tmp_path: Path) -> None:
    async def work(place: Bench) -> None:
        pool = WorkerPool(lambda: place.worker(ECHO), limit=1)
        worker = await pool.acquire()
        await worker.start(place.spawner, place.lines.extend)
        await worker.initialised()
        impatient, patient = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(worker)
        # The worker has been given to the first, which is cancelled before it could take it.
        impatient.cancel()
        assert await patient is worker
        pool.close()
        pool.release(worker)
        assert not worker.alive

    run(tmp_path, work)
