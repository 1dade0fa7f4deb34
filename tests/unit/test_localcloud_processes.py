"""No child outlives localcloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localcloud.processes import Supervisor

# A child with a grandchild in its process group; both sleep, the grandchild's number is printed.
FAMILY = "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(child.pid, flush=True); time.sleep(600)"


def alive(pid: int) -> bool:
    try:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return False
    return bool(state) and not state.startswith("Z")


@pytest.fixture
def supervisor() -> Any:
    supervisor = Supervisor()
    yield supervisor
    supervisor.stop()


def spawn_family(supervisor: Supervisor) -> tuple[subprocess.Popen[bytes], int]:
    process = supervisor.spawn([sys.executable, "-c", FAMILY], env=dict(os.environ), stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_release_ends_the_whole_family(supervisor: Supervisor, poll: Callable[..., Any]) -> None:
    process, grandchild = spawn_family(supervisor)
    assert supervisor.release(process) == -signal.SIGKILL
    poll(lambda: not alive(grandchild))


def test_release_gives_a_child_time_to_end_by_itself(supervisor: Supervisor) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(600)"
    process = supervisor.spawn([sys.executable, "-c", code], env=dict(os.environ), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert supervisor.release(process, grace=30) == 7


def test_release_returns_the_exit_code_of_a_child_that_ended(supervisor: Supervisor) -> None:
    process = supervisor.spawn([sys.executable, "-c", "raise SystemExit(3)"], env=dict(os.environ))
    process.wait()
    assert supervisor.release(process) == 3


def test_stop_ends_every_child_and_refuses_new_ones(poll: Callable[..., Any]) -> None:
    supervisor = Supervisor()
    families = [spawn_family(supervisor) for _ in range(2)]
    supervisor.stop()
    poll(lambda: not any(alive(process.pid) or alive(grandchild) for process, grandchild in families))
    with pytest.raises(RuntimeError):
        supervisor.spawn([sys.executable, "-c", ""], env={})


def test_children_die_when_the_owner_is_killed(tmp_path: Path, poll: Callable[..., Any]) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import os, subprocess, sys, time\n"
        "from localcloud.processes import Supervisor\n"
        f"child = Supervisor().spawn([sys.executable, '-c', {FAMILY!r}], env=dict(os.environ), stdout=subprocess.PIPE)\n"
        "print(child.pid, int(child.stdout.readline()), flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[2]
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)})
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    owner.kill()
    owner.wait()
    poll(lambda: not any(alive(pid) for pid in pids))
