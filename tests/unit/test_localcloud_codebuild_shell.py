"""The shell of a build, with the real sh and bash."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localcloud.codebuild import shell as shell_module
from localcloud.codebuild.shell import Ending, Interrupted, Shell
from localcloud.output import LINE_BYTES
from localcloud.processes import Supervisor


class Session:
    """A shell and what it printed."""

    def __init__(self, processes: Supervisor, program: str, folder: Path) -> None:
        self.lines: list[str] = []
        work, scratch = folder / "work", folder / "my scratch"
        for new in (work, scratch):
            new.mkdir()
        self.work = work
        self.shell = Shell(processes, program, {"PATH": os.environ["PATH"], "GIVEN": "it's"}, work, scratch, self.lines.extend)

    def run(self, *commands: str, **variables: str) -> list[int]:
        """Run commands; return their exit codes."""
        return [self.shell.run(command, variables, time.monotonic() + 60) for command in commands]


@pytest.fixture(params=["sh", "bash"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    processes = Supervisor()
    found = Session(processes, request.param, tmp_path)
    yield found
    found.shell.close()
    processes.stop()


def test_variables_functions_and_the_folder_go_on(session: Session) -> None:
    assert session.run("A=1; export B=2", "mkdir new && cd new", "f() { echo f $1; }", "f x", "echo $A $B $GIVEN; pwd") == [0] * 5
    assert session.lines == ["f x", "1 2 it's", str(session.work / "new")]


def test_exit_codes(session: Session) -> None:
    codes = session.run("true", "false", "sh -c 'exit 7'", "no-such-program", "kill -9 $$", "echo on", "return 4", "exec sh -c 'exit 5'")
    assert codes == [0, 1, 7, 127, 137, 0, 4, 5]


@pytest.mark.parametrize("ending", ["exit 3", "set -e; sh -c 'exit 3'", "set -e\n(exit 3)\necho never"])
def test_a_command_may_end_the_shell(session: Session, ending: str) -> None:
    assert session.run("mkdir new && cd new && export B=2", ending, "echo on $B; pwd") == [0, 3, 0]
    assert session.lines == ["on 2", str(session.work / "new")]


@pytest.mark.parametrize("command", ["if", "echo 'open", "break; false", "${NOT_SET:?}"])
def test_what_is_no_command_fails_alone(session: Session, command: str) -> None:
    bad, good = session.run(command, "echo on")
    assert bad != 0
    assert good == 0
    assert session.lines[-1] == "on"


def test_commands_have_no_input(session: Session) -> None:
    assert session.run("cat", "echo on") == [0, 0]
    assert session.lines == ["on"]


def test_output_comes_in_order_and_whole(session: Session) -> None:
    session.run("printf no-newline", "echo to-stderr >&2", "printf 'a\\n\\nb\\n'", "printf '\\303\\244\\377\\n'")
    assert session.lines == ["no-newline", "to-stderr", "a", "", "b", "ä�"]


@pytest.mark.parametrize("size", [262143, 262144, 262145, 400000, 65535])
def test_long_output_without_an_end_is_whole(session: Session, size: int) -> None:
    assert session.run(f"head -c {size} /dev/zero | tr '\\0' x") == [0]
    assert sum(len(line) for line in session.lines) == size


def test_a_mark_that_comes_in_pieces_behind_long_output_is_seen(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.run("true")
    mark = f"\x01{session.shell._token} 7\n".encode()
    chunks = iter([b"x" * LINE_BYTES, b"y" + mark[:9], mark[9:], b""])
    with monkeypatch.context() as patch:
        patch.setattr(shell_module, "os", SimpleNamespace(read=lambda descriptor, size: next(chunks)))
        session.shell._read(0)
    assert session.shell._status == 7
    assert "".join(session.lines) == "x" * LINE_BYTES + "y"


def test_variables_of_the_build_are_set_before_each_command(session: Session) -> None:
    session.run("echo $SUCCEEDING", SUCCEEDING="1")
    session.run("echo $SUCCEEDING; sh -c 'echo $SUCCEEDING'", SUCCEEDING="it's 0")
    assert session.lines == ["1", "it's 0", "it's 0"]


def test_values_are_read_as_they_are(session: Session) -> None:
    session.run("A='one\ntwo'", "export B='x=y \"z\"'", "EMPTY=")
    assert session.shell.values(["A", "B", "EMPTY", "MISSING"]) == {"A": "one\ntwo", "B": 'x=y "z"', "EMPTY": ""}
    assert session.lines == []


def test_texts_are_expanded_by_the_shell(session: Session) -> None:
    session.run("A=1")
    assert session.shell.expand('a "b" $A-$(echo c)') == 'a "b" 1-c'


def test_close_ends_what_runs_in_the_background(session: Session, poll: Callable[..., Any], alive: Callable[[int], bool]) -> None:
    session.run("sleep 600 & echo $!")
    pid = int(session.lines[0])
    assert alive(pid)
    session.shell.close()
    poll(lambda: not alive(pid))


def test_an_interrupt_ends_everything_at_once(session: Session, poll: Callable[..., Any], alive: Callable[[int], bool]) -> None:
    caught: list[Ending] = []

    def run() -> None:
        try:
            session.run("echo $$; trap '' TERM INT; sleep 600; sleep 600")
        except Interrupted as interrupted:
            caught.append(interrupted.ending)

    thread = threading.Thread(target=run)
    thread.start()
    [line] = poll(lambda: list(session.lines))
    session.shell.interrupt()
    thread.join(60)
    assert caught == [Ending.STOPPED]
    poll(lambda: not alive(int(line)))
    with pytest.raises(Interrupted):
        session.run("echo never")


def test_a_deadline_ends_a_command(session: Session) -> None:
    with pytest.raises(Interrupted) as caught:
        session.shell.run("sleep 600", {}, time.monotonic() + 0.2)
    assert caught.value.ending is Ending.TIMED_OUT


def test_a_shell_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    processes = Supervisor()
    shell = Shell(processes, "bash", {"PATH": str(tmp_path)}, tmp_path, tmp_path, lambda lines: None)
    with pytest.raises(OSError, match="bash"):
        shell.run("true", {})
    processes.stop()
