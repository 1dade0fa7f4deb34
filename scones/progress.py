"""Progress on stderr: bars on a terminal, nothing (or one line a phase) elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from scones.console import rich_console

if TYPE_CHECKING:
    from rich.progress import TaskID


class Advance(Protocol):
    """Told how far a phase is."""

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """Say that *done* of *total* (None: unknown) are finished in *phase*."""


@contextmanager
def bars() -> Iterator[Advance]:
    """Yield a callback that draws one bar for each phase; without a terminal it writes one line when a phase begins."""
    console = rich_console(stderr=True)
    if not console.is_terminal:
        seen: set[str] = set()

        def line(phase: str, done: int, total: int | None) -> None:
            if phase not in seen:
                seen.add(phase)
                console.print(f"{phase} ...")

        yield line
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def draw(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done, total=total)

        yield draw
