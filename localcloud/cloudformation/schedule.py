"""Work on many resources at once, each after those that it waits for."""

from __future__ import annotations

import graphlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from localcloud.cloudformation.errors import Cancelled, ResourceFailure, Stopping
from localcloud.errors import ServiceError


@dataclass
class Operation:
    """A stack operation that is under way in this process.

    Attributes:
        stack_id: The stack.
        stopping: Set when the process is ending.
        cancel: Set when no further resource is to be begun and waits are to end.
        delete_next: A delete was asked for while the stack was being created.
        user_cancelled: CancelUpdateStack was called.
        timed_out: The deadline has passed.
        deadline: When the operation is to have ended, in `time.monotonic` seconds.
        imports: Exports that were read.
        ended: Set when it is over.
        awaited: Somebody has asked for the stack since it began.
    """

    stack_id: str
    stopping: threading.Event
    cancel: threading.Event = field(default_factory=threading.Event)
    delete_next: bool = False
    user_cancelled: bool = False
    timed_out: bool = False
    deadline: float | None = None
    imports: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)
    awaited: bool = False


def run_all(
    operation: Operation, waits_for: Mapping[str, Iterable[str]], work: Callable[[str], None], *, workers: int, keep_going: bool = False
) -> dict[str, str]:
    """Do *work* for each name and return why those failed that did.

    Args:
        operation: Its `cancel` ends the run early (not with *keep_going*), its `stopping` always does; it is cancelled when its deadline passes.
        waits_for: What each name comes after.
        work: Raises ResourceFailure, Cancelled or ServiceError when it fails.
        workers: How many at once.
        keep_going: A failure only keeps those back that wait for it; without, it cancels the operation.

    Raises:
        Stopping: The process is ending.
    """
    sorter = graphlib.TopologicalSorter(waits_for)
    sorter.prepare()
    failures: dict[str, str] = {}
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="resource") as pool:
        while True:
            if not (operation.stopping.is_set() or (operation.cancel.is_set() and not keep_going)):
                for name in sorter.get_ready():
                    running[pool.submit(work, name)] = name
            if not running:
                break
            left = None if operation.deadline is None else max(operation.deadline - time.monotonic(), 0)
            done, _ = wait(running, timeout=left, return_when=FIRST_COMPLETED)
            if not done:
                operation.timed_out, operation.deadline = True, None
                operation.cancel.set()
            for future in done:
                name = running.pop(future)
                error = future.exception()
                if error is None:
                    sorter.done(name)
                elif isinstance(error, (ResourceFailure, Cancelled, ServiceError)):
                    failures[name] = str(error)
                    if not keep_going:
                        operation.cancel.set()
                elif not isinstance(error, Stopping):
                    operation.cancel.set()
                    raise error
    if operation.stopping.is_set():
        raise Stopping
    return failures
