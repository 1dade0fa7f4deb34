"""Whole processes: how long a command takes to answer, what localcloud costs while it idles."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.measure import Figure, at_most, median, repeated, seconds
from scones import local

RUNS = 7


def command_line() -> list[Figure]:
    """Measure ``scones --help``."""
    command = [str(Path(sys.executable).with_name("scones")), "--help"]
    times = repeated(lambda: subprocess.run(command, check=True, capture_output=True), RUNS)
    return [at_most("scones --help, median", median(times), "s", 0.3)]


def localcloud_process() -> list[Figure]:
    """Measure localcloud from the start of its process to its first answer, and its resident memory then."""
    starts, memory = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            state_dir = Path(folder)
            starts.append(seconds(partial(local.start, state_dir)))
            running = local.find_running(state_dir)
            assert running is not None
            memory.append(resident_megabytes(running.pid))
            local.stop(running)
    return [
        at_most("localcloud, start to first answer, median", median(starts), "s", 2),
        at_most("localcloud, resident memory with all its processes, idle", median(memory), "MB", 250),
    ]


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process and everything below it, in MB (10^6 bytes)."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(int(word) for word in line.split()) for line in listing.splitlines()]
    family = {pid}
    while True:
        more = {child for child, parent, _ in rows if parent in family} - family
        if not more:
            break
        family |= more
    return sum(kilobytes for child, _, kilobytes in rows if child in family) * 1024 / 1e6
