"""Inspect many images, in processes when there is enough to do."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from failures import StepError
from inputs import InputImage
from validation import ImageRules, Inspected, Rejected, inspect_file

logger = logging.getLogger(__name__)

# Measured: about 1 ms for a small image and 30 ms per megabyte of JPEG; starting processes costs about half a second.
_SECONDS_PER_IMAGE = 0.001
_SECONDS_PER_BYTE = 30e-9
_WORTH_PROCESSES_SECONDS = 3.0
_CHUNK = 32
_CHUNKS_AHEAD_PER_PROCESS = 2

_Result = Inspected | Rejected


def inspect_all(images: Sequence[InputImage], rules: ImageRules, processes: int | None = None) -> Iterator[_Result]:
    """The verdict on each image, in order. `processes`: None chooses by the amount of work. Memory is bounded by a few chunks of results.

    Raises StepError when a process dies, which is what running out of memory looks like.
    """
    if processes is None:
        processes = _processors() if _seconds(images) > _WORTH_PROCESSES_SECONDS else 1
    if processes == 1:
        for image in images:
            yield inspect_file(image.file, image.sha256, rules)
        return
    logger.info("Reading images in %d processes", processes)
    # "spawn" everywhere: a fork would copy locks that other threads of this process (logging, tracking) hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_die_with_parent) as pool:
        waiting: deque[Future[list[_Result]]] = deque()
        try:
            for start in range(0, len(images), _CHUNK):
                waiting.append(pool.submit(_inspect_chunk, list(images[start : start + _CHUNK]), rules))
                if len(waiting) >= processes * _CHUNKS_AHEAD_PER_PROCESS:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise StepError(
                "A process that read images was killed, most likely for want of memory. Use an instance type with more memory per processor."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _inspect_chunk(images: Sequence[InputImage], rules: ImageRules) -> list[_Result]:
    return [inspect_file(image.file, image.sha256, rules) for image in images]


def _die_with_parent() -> None:
    """End this worker when the job is killed, also by a signal that lets it clean up nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(images: Sequence[InputImage]) -> float:
    size = 0
    for image in images:
        try:
            size += image.file.stat().st_size
        except OSError:  # inspect_file says why
            continue
    return len(images) * _SECONDS_PER_IMAGE + size * _SECONDS_PER_BYTE
