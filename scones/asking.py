"""Asking a person before something is changed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from scones.errors import ExitCode, SconesError


def confirmed(question: str, *, yes: bool, option: str = "--yes") -> bool:
    """Return whether a person agrees, or *option* agreed already.

    Raises:
        SconesError: There is nobody to ask.
    """
    if yes:
        return True
    _require_terminal(option)
    return click.confirm(question, default=False, err=True)


def agreed_or_discarded(question: str, show: Callable[[], None], discard: Callable[[], None], *, yes: bool) -> None:
    """Show what was prepared and ask for it; unless a person agrees, it is discarded.

    Raises:
        SconesError: They do not agree, or there is nobody to ask.
    """
    try:
        show()
        agreed = confirmed(question, yes=yes)
    except BaseException:  # also Ctrl-C at the question
        discard()
        raise
    if not agreed:
        discard()
        raise SconesError("Nothing was changed", exit_code=ExitCode.FAILED)


def named(question: str, name: str, given: str | None, option: str) -> bool:
    """Return whether *name* was typed, in *option* or now.

    Raises:
        SconesError: There is nobody to ask, or *option* names something else.
    """
    if given is not None:
        if given != name:
            raise SconesError(f"{option} {given} is not the name of the project, which is {name}", exit_code=ExitCode.USAGE)
        return True
    _require_terminal(f"{option} {name}")
    return str(click.prompt(question, default="", show_default=False, err=True)) == name


def _require_terminal(option: str) -> None:
    if not sys.stdin.isatty():
        raise SconesError(
            "This changes things and there is no terminal to ask on; nothing was changed",
            f"Look first with --dry-run, then agree with {option}.",
            ExitCode.USAGE,
        )
