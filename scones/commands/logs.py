"""``scones logs``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from scones import log_streams
from scones.errors import ExitCode, SconesError
from scones.log_streams import LogLine, LogSource
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings


@click.command()
@click.argument("name")
@click.option("--execution", help="Pipeline execution whose step is meant: its ARN, its id or the beginning of it (default: the newest).")
@click.option("--last", type=click.IntRange(min=1), help="Show only this many lines.")
@settings_options
@command_options()
def logs(context: Context, name: str, execution: str | None, last: int | None, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Show the logs of NAME: a step (Train), a function (image-classification) or an endpoint (scones-production)."""
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    source = _find(context, settings, name, execution)
    lines = log_streams.read(context.target, source, last)
    document = {"log_group": source.group, "stream_prefix": source.stream_prefix, "lines": [_document(line) for line in lines]}

    def human(console: Console) -> None:
        if not lines:
            console.print(f"{source.group}/{source.stream_prefix} has no lines yet")
        for line in lines:
            console.print(line.message.rstrip("\n"), markup=False, soft_wrap=True)

    context.output.result(document, human)


def _document(line: LogLine) -> dict[str, object]:
    return {"timestamp": line.timestamp, "stream": line.stream, "message": line.message}


def _find(context: Context, settings: Settings, name: str, execution: str | None) -> LogSource:
    from scones.executions import Executions

    executions = Executions(context.target, settings)
    found = executions.find(execution) if execution else executions.newest()
    steps = {} if found is None else {step.name: step for step in found.steps}
    if name in steps:
        job = steps[name].resource_arn
        source = None if job is None else log_streams.of_job(context.target, job)
        if source is None:
            raise SconesError(
                f"The step {name} ran no job, so it has no log", "Steps with logs: Preprocess, Train, Evaluate", ExitCode.USAGE
            )
        return source
    functions = _names(context, "lambda", "list_functions", "Functions", "FunctionName")
    endpoints = _names(context, "sagemaker", "list_endpoints", "Endpoints", "EndpointName")
    prefix = f"{settings.project.name}-"
    for function in functions:
        if name in (function, function.removeprefix(prefix)):
            return log_streams.of_function(function)
    if name in endpoints:
        return log_streams.of_endpoint(name)
    # What an account has of other projects is found by its name, and not offered.
    own = [function.removeprefix(prefix) for function in functions if function.startswith(prefix)]
    names = [*steps, *own, *(endpoint for endpoint in endpoints if endpoint.startswith(prefix))]
    raise SconesError(
        f"Nothing here is called '{name}'",
        f"{_nearest(name, names)}There are: {', '.join(names)}" if names else "Nothing has run yet: scones run --data FOLDER (or sample)",
        ExitCode.USAGE,
    )


def _nearest(name: str, names: list[str]) -> str:
    """Return the question whether the name that is most like it was meant; nothing when none is."""
    lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"Did you mean '{lower[near[0]]}'? " if near else ""


def _names(context: Context, service: str, operation: str, result: str, name: str) -> list[str]:
    pages = context.target.client(service).get_paginator(operation).paginate()
    return [item[name] for page in pages for item in page[result]]
