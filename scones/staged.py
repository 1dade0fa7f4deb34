"""Staging with progress, for the commands that need images in S3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scones.platform import ensure_platform, existing_platform
from scones.progress import bars

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.settings import Settings
    from scones.options import Context
    from staging import Dataset, StagedDataset
    from staging.dataset import Progress


def stage_source(context: Context, settings: Settings, source: str, classes: Sequence[str] = (), *, dry_run: bool = False) -> StagedDataset:
    """Check a source, then make sure of the platform, then upload; warnings go to stderr.

    With *dry_run* nothing is sent or made: `uploaded` of the result says how many objects would be.

    Raises:
        StagingError: The source is refused or cannot be uploaded.
        SconesError: There is no platform to upload to.
    """
    from staging import prepare
    from staging.upload import upload

    with _progress() as progress:
        # Everything that can be wrong with the images is found before anything is started or sent.
        dataset = prepare(source, cache_dir=_cache(context), classes=classes, progress=progress)
        bucket = (existing_platform if dry_run else ensure_platform)(context, settings).bucket
        staged = upload(dataset, s3_client=context.target.client("s3"), bucket=bucket, progress=progress, dry_run=dry_run)
    for warning in staged.warnings:
        context.output.note(f"Warning: {warning}")
    if staged.ignored:
        context.output.note(f"Ignored {len(staged.ignored)} files that are not images, e.g. {staged.ignored[0]}")
    return staged


def check_source(context: Context, source: str) -> Dataset:
    """Read a source and check it; where it would go to is not looked at.

    Raises:
        StagingError: The source is refused.
    """
    from staging import prepare

    with _progress() as progress:
        return prepare(source, cache_dir=_cache(context), progress=progress)


def _cache(context: Context) -> Path:
    return context.state_dir / "datasets"


@contextmanager
def _progress() -> Iterator[Progress]:
    with bars() as advance:
        yield lambda event: advance(event.phase.value, event.done, event.total)
