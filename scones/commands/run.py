"""``scones run``."""

from __future__ import annotations

import sys

import click

from scones.errors import ExitCode
from scones.options import Context, command_options, settings_options


@click.command()
@click.option("--data", metavar="SOURCE", help="Stage these images first (see: scones stage --help), or the S3 URI of staged ones.")
@click.option("--no-wait", is_flag=True, help="Return when the execution has started.")
@settings_options
@command_options()
def run(context: Context, data: str | None, no_wait: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Run the SageMaker Pipeline: preprocess, train, evaluate; if the model is good enough, register it and serve it on the staging endpoint.

    Steps whose code, data and parameters have not changed are taken from an earlier execution. Exits with 1 when the execution fails.
    """
    from scones import running
    from scones.executions import document
    from scones.views import next_command, print_execution

    settings = running.load_settings(context, stage, overrides)
    execution = running.run(context, settings, data, wait=not no_wait)

    context.output.result(document(execution), lambda console: print_execution(console, execution))
    if execution.status in ("Failed", "Stopped"):
        context.output.note(next_command(execution))
        sys.exit(ExitCode.FAILED)
    if execution.model_package_arn is not None:
        context.output.note("The model waits for approval. Approve it: scones models approve")
