"""One asyncio loop in a thread, for work that goes on after a request is answered: invocations, deliveries, executions, timers.

Waiting costs nothing here, so that a thousand executions in a Wait state need no thousand threads. Nothing on the loop may block: what does (a moto call,
a boto3 client) goes through `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Threads for blocking calls made on behalf of coroutines; a workflow may hold several at once.
BLOCKING_THREADS = 64


class Background:
    """The loop and its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._executor = concurrent.futures.ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")
        self.loop.set_default_executor(self._executor)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        """Begin running what is submitted."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel everything and end the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine from any other thread; the future has its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from any other thread and wait for its result.

        Raises:
            RuntimeError: Called on the loop's own thread, where it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a coroutine on the background loop must be awaited, not called")
        return self.submit(coroutine).result()

    def spawn(self, coroutine: Coroutine[Any, Any, Any], on_error: Callable[[BaseException], None] | None = None) -> None:
        """Start a coroutine that nobody waits for, from any thread; an exception is logged and handed to *on_error*."""
        if threading.current_thread() is self._thread:
            self._start(coroutine, on_error)
        else:
            self.loop.call_soon_threadsafe(self._start, coroutine, on_error)

    def _start(self, coroutine: Coroutine[Any, Any, Any], on_error: Callable[[BaseException], None] | None) -> None:
        task = self.loop.create_task(coroutine)
        # The loop itself keeps only a weak reference to a task.
        self._tasks.add(task)

        def done(finished: asyncio.Task[Any]) -> None:
            self._tasks.discard(finished)
            error = None if finished.cancelled() else finished.exception()
            if error is not None:
                log.error("background work failed", exc_info=error)
                if on_error is not None:
                    on_error(error)

        task.add_done_callback(done)

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
