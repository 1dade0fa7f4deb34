"""How executions look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scones.advice import advice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipelines.executions import EvaluationMetrics, ExecutionResult, StepProgress

_STYLES = {"Succeeded": "green", "Failed": "red", "Stopped": "yellow", "Executing": "cyan", "Starting": "cyan", "Stopping": "yellow"}


def status_words(step: StepProgress) -> str:
    """Return a step's status in a word or two."""
    return "cached" if step.cached and step.status == "Succeeded" else step.status


def steps_table(steps: Iterable[StepProgress]) -> Table:
    """Return the steps with status and seconds."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("step")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    for step in steps:
        seconds = "" if step.seconds is None else f"{step.seconds:.1f}"
        table.add_row(step.display_name, f"[{_STYLES.get(step.status, '')}]{status_words(step)}[/]", seconds)
    return table


def print_metrics(console: Console, metrics: EvaluationMetrics) -> None:
    """Print the figures that decide."""
    low, high = metrics.confidence_interval
    at_threshold = "" if metrics.accuracy_at_threshold is None else f"; those are right {metrics.accuracy_at_threshold:.1%} of the time"
    console.print(f"accuracy {metrics.accuracy:.4f} on {metrics.test_images} test images (95 % interval {low:.3f} to {high:.3f})")
    console.print(f"{metrics.coverage_at_threshold:.1%} are at or above the confidence threshold of {metrics.threshold:g}{at_threshold}")
    if metrics.champion_accuracy is not None:
        console.print(f"the newest approved version has {metrics.champion_accuracy:.4f} on the same images")


def print_execution(console: Console, execution: ExecutionResult) -> None:
    """Print an execution: its status, its steps, its figures, and why it failed."""
    console.print(
        f"execution {execution.execution_arn}\nstatus    [{_STYLES.get(execution.status, '')}]{execution.status}[/]", soft_wrap=True
    )
    console.print(steps_table(execution.steps))
    if execution.metrics is not None:
        print_metrics(console, execution.metrics)
    if execution.model_package_arn is not None:
        console.print(f"model     {execution.model_package_arn}", soft_wrap=True)
    failed = execution.failed_step
    if failed is not None:
        console.print(f"[red]{failed.name} failed:[/] ", end="")
        console.print(failed.failure_reason or "no reason given", markup=False)
    elif execution.failure_reason:
        console.print(execution.failure_reason, markup=False)


def next_command(execution: ExecutionResult) -> str:
    """Return what to do when an execution failed: about its reason, or the failed step's log, when it ran a job that has one."""
    failed = execution.failed_step
    reason = (failed.failure_reason if failed is not None else execution.failure_reason) or ""
    known = advice(reason) if "LimitExceeded" in reason or "not authorized" in reason else None
    if known is not None:
        return known
    return f"The log: scones logs {failed.name}" if failed is not None and failed.resource_arn is not None else "More: scones status"
