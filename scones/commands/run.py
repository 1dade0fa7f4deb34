"""``scones run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from scones.console import counted
from scones.errors import ExitCode
from scones.options import Context, command_options, not_empty, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.run import RunPlan
    from pipelines.settings import Settings
    from staging import StagedDataset


@click.command()
@click.option(
    "--data",
    callback=not_empty,
    metavar="SOURCE",
    help="Stage these images first (see: scones stage --help), or the S3 URI of staged ones.",
)
@click.option("--no-wait", is_flag=True, help="Return when the execution has started.")
@click.option("--if-changed", is_flag=True, help="Start nothing when all that a model depends on is as it was for the newest execution.")
@click.option("--dry-run", is_flag=True, help="Check, render and lint everything, show what would be uploaded and started, and do nothing.")
@settings_options
@command_options()
def run(
    context: Context, data: str | None, no_wait: bool, if_changed: bool, dry_run: bool, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Run the SageMaker Pipeline: preprocess, train, evaluate; if the model is good enough, register it and serve it on the staging endpoint.

    Without --data: on the images that the settings name (data.input_uri), else on those of the newest execution. Steps whose code, data and
    parameters have not changed are taken from an earlier execution. Exits with 1 when the execution fails.
    """
    from scones import running
    from scones.executions import document
    from scones.views import next_command, print_execution

    settings = running.load_settings(context, stage, overrides, dry_run=dry_run)
    if dry_run:
        _show_plan(context, settings, *running.plan(context, settings, data, only_if_changed=if_changed))
        return
    execution = running.run(context, settings, data, wait=not no_wait, only_if_changed=if_changed)

    context.output.result(document(execution), lambda console: print_execution(console, execution))
    if execution.is_earlier or no_wait:
        return
    if execution.status in ("Failed", "Stopped"):
        context.output.note(context.hint(next_command(execution)))
        sys.exit(ExitCode.FAILED)
    if execution.model_package_arn is not None:
        context.output.note(context.hint("The model waits for approval. Approve it: scones models approve"))


def _show_plan(context: Context, settings: Settings, plan: RunPlan, staged: StagedDataset | None) -> None:
    document = {"outcome": "planned", **plan_document(settings, plan, staged)}
    context.output.result(document, lambda console: print_plan(console, settings, plan, staged))
    context.output.note("Nothing was uploaded or started (--dry-run).")


def plan_document(settings: Settings, plan: RunPlan, staged: StagedDataset | None) -> dict[str, Any]:
    """Return what a run would do, as --json prints it."""
    return {
        "pipeline": {"name": settings.pipeline.name, "would_be": plan.pipeline},
        "images": None if staged is None else {"uri": staged.uri, "counts": staged.counts, "uploads": staged.uploaded},
        "code_uploads": list(plan.uploads),
        "parameters": dict(plan.parameters),
        "steps": list(plan.steps),
        "starts": plan.same_as is None,
        "same_as": None if plan.same_as is None else plan.same_as.execution_arn,
    }


def print_plan(console: Console, settings: Settings, plan: RunPlan, staged: StagedDataset | None) -> None:
    """Print what a run would do."""
    from scones.following import nothing_changed

    if staged is not None:
        console.print(f"{counted(staged.uploaded, 'object')} of images would be uploaded to {staged.uri}", soft_wrap=True)
    console.print(f"{counted(len(plan.uploads), 'file')} of code would be uploaded")
    if plan.same_as is not None:
        console.print(f"the pipeline {settings.pipeline.name} would be {plan.pipeline}", soft_wrap=True)
        console.print(nothing_changed(plan.same_as), markup=False, soft_wrap=True)
        return
    console.print(f"the pipeline {settings.pipeline.name} would be {plan.pipeline}, and started with")
    for name, value in plan.parameters.items():
        console.print(f"  {name} = {value}", markup=False, soft_wrap=True)
    console.print(f"steps: {', '.join(plan.steps)}; those whose inputs have not changed come from the cache", soft_wrap=True)
