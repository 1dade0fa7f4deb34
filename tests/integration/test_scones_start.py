"""Two commands that need localcloud at the same time, when none runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scones import local


def test_two_commands_that_start_localcloud_at_once_share_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(local.start, [tmp_path, tmp_path])
    try:
        assert (first.pid, first.port) == (second.pid, second.port)
    finally:
        local.stop(first)
