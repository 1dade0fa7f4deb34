"""A localcloud in a process of its own, which can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Clients

ROOT = Path(__file__).resolve().parents[2]


class Process(Clients):
    """A running localcloud, and clients onto it.

    Attributes:
        process: Its process.
        endpoint_url: Where it listens.
        cloud: None: the region is not in this process.
    """

    def __init__(self, state_dir: Path, poll: Callable[..., Any]) -> None:
        command = [sys.executable, "-m", "localcloud", "--state-dir", str(state_dir), "--quiet"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

        def url() -> str | None:
            try:
                status = json.loads((state_dir / "running.json").read_text())
            except (OSError, ValueError):
                return None
            return str(status["endpoint_url"]) if status["pid"] == self.process.pid else None

        try:
            super().__init__(poll(url, 60))
        except BaseException:
            self.kill()
            raise
        self.cloud = None

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()
