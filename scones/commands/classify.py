"""``scones classify``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from scones.console import counted
from scones.errors import ExitCode, SconesError
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.progress import Progress

    from scones.workflow import Classification, Workflow


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--threshold", type=click.FloatRange(0.0, 1.0), help="Confidence from which an inference is accepted (default: the deployed one)."
)
@click.option("--dry-run", is_flag=True, help="Check the photos and the workflow, say what would be sent where, and send nothing.")
@settings_options
@command_options()
def classify(
    context: Context, images: tuple[str, ...], threshold: float | None, dry_run: bool, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Send photos (files or S3 URIs) through the production workflow.

    A confidence below the threshold is an outcome (needs_review), not a failure. Exits with 1 when any photo could not be classified.
    """
    from scones.production import Production
    from scones.registry import stack_outputs
    from scones.settings import load
    from scones.workflow import Workflow
    from staging.folder import MAX_IMAGE_BYTES

    settings = load(context, stage, overrides).settings
    outputs = stack_outputs(context.target, f"{settings.project.name}-inference")
    if outputs is None or "StateMachineArn" not in outputs:
        state = Production(context.target, settings).stack().describe()
        if state is not None and not state.settled:
            raise SconesError(
                f"The first deployment to production is under way ({state.status}); nothing serves yet", "Wait for its end: scones status"
            )
        raise SconesError(
            f"Nothing is deployed to production yet ({context.target})",
            "Train a model (scones run --data FOLDER, or sample), approve it (scones models approve), then try again.",
        )
    bucket = settings.platform.image_bucket or settings.aws.bucket
    if bucket is None:
        platform = stack_outputs(context.target, settings.aws.platform_stack) or {}
        if "ArtifactBucketName" not in platform:
            raise SconesError(
                f"The platform is gone: there is no stack {settings.aws.platform_stack} ({context.target}), so that no bucket is known to take photos",
                "Bring it back: scones aws bootstrap. Then production gets its new roles: scones deploy refresh",
                ExitCode.USAGE,
            )
        bucket = platform["ArtifactBucketName"]
    workflow = Workflow(context.target, outputs["StateMachineArn"], bucket, int(outputs.get("MaxImageBytes", MAX_IMAGE_BYTES)))

    if dry_run:
        _show_plan(context, workflow, images, threshold)
        return
    with _progress(len(images)) as advance:
        classifications = list(workflow.classify(images, threshold, advance))

    context.output.result([found.document() for found in classifications], lambda console: print_classifications(console, classifications))
    if any(found.result is None for found in classifications):
        sys.exit(ExitCode.FAILED)


def print_classifications(console: Console, classifications: Sequence[Classification]) -> None:
    """Print what became of each photo, and below, across the whole width, why some could not be classified."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("image", "decision", "label", "confidence"):
        table.add_column(heading, overflow="fold")
    for found in classifications:
        if found.result is None:
            table.add_row(escape(found.image), "[red]failed[/]", "", "")
        else:
            label, confidence = escape(found.result["predicted_label"]), f"{found.result['confidence']:.3f}"
            table.add_row(escape(found.image), found.result["decision"], label, confidence)
    console.print(table)
    for found in classifications:
        if found.result is None:
            console.print(f"{found.image}: {found.error}: {found.cause}", markup=False, soft_wrap=True)


def _show_plan(context: Context, workflow: Workflow, images: tuple[str, ...], threshold: float | None) -> None:
    photos = workflow.plan(images)

    def human(console: Console) -> None:
        console.print(f"{counted(len(photos), 'execution')} of {workflow.arn} would be started", soft_wrap=True)
        if threshold is not None:
            console.print(f"with the threshold {threshold:g} in place of the deployed one")
        for photo in photos:
            to = f", would be uploaded to {photo.uri}" if photo.is_file else ""
            console.print(f"  {photo.image}: {photo.size:,} bytes{to}", markup=False, soft_wrap=True)

    document = {
        "outcome": "planned",
        "state_machine_arn": workflow.arn,
        "threshold": threshold,
        "photos": [{"image": photo.image, "uri": photo.uri, "bytes": photo.size, "uploads": photo.is_file} for photo in photos],
    }
    context.output.result(document, human)
    context.output.note("Nothing was uploaded or started (--dry-run).")


class _progress:
    """A bar on stderr for many photos on a terminal; nothing otherwise."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Progress | None = None

    def __enter__(self) -> Callable[[], None]:
        from scones.console import rich_console

        console = rich_console(stderr=True)
        if self._total < 5 or not console.is_terminal:
            return lambda: None
        from rich.progress import Progress

        self._bar = bar = Progress(console=console, transient=True)
        bar.start()
        task = bar.add_task("classifying", total=self._total)
        return lambda: bar.advance(task)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
