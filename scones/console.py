"""What reaches the terminal: results on stdout, everything else on stderr; with --json one JSON document on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scones.errors import SconesError

if TYPE_CHECKING:
    from rich.console import Console


class Output:
    """Where a command writes.

    Attributes:
        as_json: Whether the result is one JSON document.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, document: Any, human: Callable[[Console], None]) -> None:
        """Write the command's result: *document* as JSON, or whatever *human* prints.

        Raises:
            SconesError: It cannot be written.
        """
        try:
            if self.as_json:
                click.echo(json.dumps(document, indent=2, default=_encode, ensure_ascii=False))
            else:
                human(rich_console())
        except BrokenPipeError:
            raise  # `scones ... | head` is no mistake
        except OSError as error:
            raise SconesError(f"The result cannot be written to standard output: {error.strerror}") from error

    def notes(self) -> Console:
        """Return a rich console for what a person should see before the result, on stderr."""
        return rich_console(stderr=True)

    def note(self, message: str) -> None:
        """Write one line about what is going on, to stderr."""
        click.echo(message, err=True)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 object, 2 objects."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def rich_console(stderr: bool = False) -> Console:
    """Return a rich console; without a terminal it prints plain lines (wide enough not to wrap what a script may read)."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=200, no_color=True)
    return console


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")
