"""Errors that the command line shows, and its exit codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; `scones --help` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class SconesError(Exception):
    """Indicates that a command cannot do what was asked.

    Args:
        message: What is wrong and where, in one line.
        hint: What to do next.
        exit_code: The exit code.
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
