"""The shell of a build: one process that runs all of its commands, so that variables and the working directory go on from command to command.

Each command is a script that the shell reads in (``.``), as CodeBuild's agent does. A command that ends the shell (``exit``, ``set -e``) gives its exit code; a new
shell then goes on with the exported variables and the folder of the old one. Everything runs in the shell's process group and ends with it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from localcloud.output import LINE_BYTES, texts
from localcloud.processes import Supervisor

#: Options that keep a shell from reading a user's own files.
_PROGRAMS: dict[str, tuple[str, ...]] = {"sh": ("sh",), "bash": ("bash", "--noprofile", "--norc")}
#: Seconds that the rest of the output is waited for once the shell has gone; a process that left the group may hold the pipe open for ever.
_DRAIN_SECONDS = 2.0


class Ending(enum.Enum):
    """Why commands were ended from outside."""

    STOPPED = "stopped"
    TIMED_OUT = "timed_out"


class Interrupted(Exception):
    """Indicates that the build was ended from outside.

    Attributes:
        ending: Why.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


class Shell:
    """A build's shell.

    Args:
        processes: Starts and ends the process.
        program: ``sh`` or ``bash``.
        environment: The variables that it begins with.
        work: The folder that it begins in.
        scratch: A folder for its own files.
        write: Takes the lines that commands print.
    """

    def __init__(
        self,
        processes: Supervisor,
        program: str,
        environment: Mapping[str, str],
        work: Path,
        scratch: Path,
        write: Callable[[list[str]], None],
    ) -> None:
        self._processes = processes
        self._program = program
        self._environment = dict(environment)
        self._work = work
        self._script = scratch / "script.sh"
        self._saved_variables = scratch / "env.sh"
        self._saved_folder = scratch / "dir.txt"
        self._values = scratch / "values"
        self._write = write
        # Printed by the shell after each command, on the pipe that commands print to: what came before it was printed by the command.
        self._token = uuid4().hex
        self._mark = re.compile(rb"\x01" + self._token.encode() + rb" (\d+)\n")
        self._change = threading.Condition()
        self._status: int | None = None
        self._ended: subprocess.Popen[bytes] | None = None
        self._interrupted: Ending | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    def run(self, command: str, variables: Mapping[str, str], deadline: float | None = None) -> int:
        """Run one command to its end and return its exit code (128 + n for signal n).

        Args:
            command: A line, or several, in the language of the shell.
            variables: Exported before it runs.
            deadline: When (`time.monotonic`) it is ended.

        Raises:
            Interrupted: It was ended by `interrupt` or by the deadline; so is the shell.
            OSError: The shell cannot be started.
        """
        self._script.write_text(command + "\n", encoding="utf-8")
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        return self._execute(f"{exports}. {shlex.quote(str(self._script))} </dev/null\n", deadline)

    def values(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of those variables that are set.

        Raises:
            Interrupted: See `run`.
        """
        self._values.write_bytes(b"")
        target = shlex.quote(str(self._values))
        lines = [f'if [ "${{{name}+x}}" ]; then printf \'%s=%s\\0\' {name} "${{{name}}}" >>{target}; fi\n' for name in names]
        self._execute("".join(lines), None)
        pairs = self._values.read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        return dict(pair.split("=", 1) for pair in pairs)

    def expand(self, text: str) -> str:
        """Return a text as the shell expands it between double quotes.

        Raises:
            Interrupted: See `run`.
        """
        escaped = text.replace('"', '\\"')
        self._script.write_text(f'printf %s "{escaped}" >{shlex.quote(str(self._values))}\n', encoding="utf-8")
        self._values.write_bytes(b"")
        self._execute(f". {shlex.quote(str(self._script))} </dev/null\n", None)
        return self._values.read_text(encoding="utf-8", errors="replace")

    def interrupt(self, ending: Ending = Ending.STOPPED) -> None:
        """End what runs, and let nothing run any more; from any thread."""
        with self._change:
            self._interrupted = self._interrupted or ending
            self._change.notify_all()

    def close(self) -> int:
        """End the shell and everything that it left behind; return its exit code (128 + n for signal n)."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        code = self._processes.release(process)
        assert self._pump is not None
        self._pump.join(_DRAIN_SECONDS)
        if not self._pump.is_alive() and process.stdout is not None:
            process.stdout.close()
        return code if code >= 0 else 128 - code

    def _execute(self, lines: str, deadline: float | None) -> int:
        with self._change:
            if self._interrupted is not None:
                raise Interrupted(self._interrupted)
        if self._process is None or self._process is self._ended:
            self.close()
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._status = None
        with contextlib.suppress(BrokenPipeError):  # it has gone; its exit code says why
            process.stdin.write(f"{lines}printf '\\001%s\\n' \"{self._token} $?\" >&9\n".encode())
            process.stdin.flush()
        with self._change:
            while self._status is None and self._ended is not process and self._interrupted is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._interrupted = Ending.TIMED_OUT
                else:
                    self._change.wait(left)
            interrupted, status = self._interrupted, self._status
        if interrupted is not None:
            self.close()
            raise Interrupted(interrupted)
        return self.close() if status is None else status

    def _start(self) -> None:
        process = self._processes.spawn(
            _PROGRAMS[self._program],
            env=self._environment,
            cwd=self._work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._pump = threading.Thread(target=self._read, args=(process.stdout.fileno(),), name="build-log", daemon=True)
        self._pump.start()
        threading.Thread(target=self._await_exit, args=(process,), name="build-shell", daemon=True).start()
        variables, folder = shlex.quote(str(self._saved_variables)), shlex.quote(str(self._saved_folder))
        prelude = "exec 9>&1\n"
        if self._saved_variables.exists():
            prelude += f'. {variables}\ncd "$(cat {folder})" || :\n'
        prelude += f"trap {shlex.quote(f'export -p >{variables}; pwd >{folder}')} EXIT\n"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(prelude.encode())
            process.stdin.flush()

    def _await_exit(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._change:
            self._ended = process
            self._change.notify_all()

    def _read(self, descriptor: int) -> None:
        """Hand on what the shell's pipe brings, line by line, and what its marks say."""
        pending = b""
        while chunk := os.read(descriptor, 65536):
            pending += chunk
            while mark := self._mark.search(pending):
                self._print(pending[: mark.start()])
                pending = pending[mark.end() :]
                with self._change:
                    self._status = int(mark[1])
                    self._change.notify_all()
            lines, end, pending = pending.rpartition(b"\n")
            self._print(lines + end)
            # Not in the middle of a mark.
            if len(pending) > LINE_BYTES and b"\x01" not in pending[-2 * len(self._token) :]:
                self._print(pending)
                pending = b""
        self._print(pending)

    def _print(self, content: bytes) -> None:
        if content:
            self._write(texts(content.removesuffix(b"\n").split(b"\n")))
