"""Following a pipeline run live: a table that fills itself on a terminal, one line per change elsewhere."""

from __future__ import annotations

import dataclasses
import time
from types import TracebackType
from typing import TYPE_CHECKING

from scones.console import rich_console
from scones.views import status_words, steps_table

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from pipelines.executions import StepProgress
    from pipelines.run import NothingChanged, RunEvent


class Follower:
    """Shows the events of `pipelines.run.run_pipeline` on stderr. Use as a context manager; `on_event` is the callback."""

    def __init__(self) -> None:
        self._console = rich_console(stderr=True)
        self._steps: dict[str, StepProgress] = {}
        self._seen: dict[str, float] = {}
        self._live: Live | None = None
        self.execution_arn: str | None = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def on_event(self, event: RunEvent) -> None:
        """Show one event."""
        from pipelines.run import NothingChanged, Preparing, Started

        if isinstance(event, Preparing):
            self._console.print(event.detail, markup=False)
        elif isinstance(event, NothingChanged):
            self._console.print(nothing_changed(event), markup=False, soft_wrap=True)
        elif isinstance(event, Started):
            self.execution_arn = event.execution_arn
            self._console.print(f"Execution {event.execution_arn}", markup=False)
            if self._console.is_terminal:
                from rich.live import Live

                self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
                self._live.start()
        else:
            self._steps[event.name] = event
            self._seen[event.name] = time.monotonic()
            if self._live is None:
                self._line(event)

    def _line(self, step: StepProgress) -> None:
        seconds = "" if step.seconds is None or step.status in ("Starting", "Executing") else f" {step.seconds:.1f} s"
        self._console.print(f"  {step.display_name}: {status_words(step)}{seconds}", markup=False)
        if step.status == "Failed" and step.failure_reason:
            self._console.print(f"    {step.failure_reason}", markup=False)

    def _table(self) -> Table:
        # A running step's seconds go on between two events.
        now = time.monotonic()
        return steps_table(
            dataclasses.replace(step, seconds=(step.seconds or 0) + now - self._seen[name]) if step.status == "Executing" else step
            for name, step in self._steps.items()
        )


def nothing_changed(event: NothingChanged) -> str:
    """Return why nothing is started."""
    execution = event.execution_arn.rpartition("/")[2]
    return (
        f"Nothing that a model depends on has changed since execution {execution} ({event.status}): nothing is trained. "
        "To train anyway, leave out --if-changed."
    )
