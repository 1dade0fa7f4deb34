"""``scones stage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scones.console import counted
from scones.options import Context, command_options, not_empty, settings_options

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("source", callback=not_empty)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Take only this class; may be repeated (default: all, or bicycle and motorcycle).",
)
@click.option("--dry-run", is_flag=True, help="Check the images and say what would be uploaded; upload nothing.")
@settings_options
@command_options()
def stage(context: Context, source: str, classes: tuple[str, ...], dry_run: bool, overrides: tuple[str, ...], stage: str | None) -> None:
    """Upload the images of SOURCE to a content-addressed prefix in S3.

    SOURCE is a folder with one sub-folder per class (or train/ and test/ of those), `cifar100` (downloads the official archive), `cifar100:FILE`
    (an archive that is already here) or `sample` (drawn bicycles and motorcycles). Staging the same images twice uploads nothing.
    """
    from scones.settings import load
    from scones.staged import stage_source

    staged = stage_source(context, load(context, stage, overrides).settings, source, classes, dry_run=dry_run)
    document = {
        "uri": staged.uri,
        "digest": staged.digest,
        "counts": staged.counts,
        "dry_run": dry_run,
        "uploaded": 0 if dry_run else staged.uploaded,
        "would_upload": staged.uploaded if dry_run else 0,
        "skipped": staged.skipped,
        "ignored": [str(ignored) for ignored in staged.ignored],
        "warnings": list(staged.warnings),
    }

    def human(console: Console) -> None:
        counts = ", ".join(f"{count} {label}" for label, count in staged.counts.items())
        done = "would be uploaded" if dry_run else "uploaded"
        console.print(f"{counts}\n{counted(staged.uploaded, 'object')} {done}, {staged.skipped} were there\n{staged.uri}", markup=False)

    context.output.result(document, human)
