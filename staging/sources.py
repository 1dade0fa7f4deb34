"""SOURCE, as a person names it: a folder, `cifar100`, `cifar100:ARCHIVE`, or `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from staging.dataset import Dataset, Progress, ProgressEvent, StagingPhase
from staging.folder import read_folder

CIFAR100 = "cifar100"
SAMPLE = "sample"


def prepare(source: str, *, cache_dir: Path, classes: Sequence[str] = (), progress: Progress | None = None) -> Dataset:
    """Read and check a source without uploading anything.

    `source`: a folder (`./sample` when it has a built-in's name), "cifar100" (downloads the official archive), "cifar100:/path/to/archive",
    or "sample". `cache_dir`: where downloads and drawn or extracted images are kept. `classes`: the classes to take; by default all of a
    folder's, and bicycle and motorcycle of CIFAR-100. Raises a StagingError that says what to do.
    """
    name, _, archive = source.partition(":")
    if name == CIFAR100:
        from staging.cifar import DEFAULT_CLASSES, extract_cifar100

        wanted = tuple(classes) or DEFAULT_CLASSES
        folder = extract_cifar100(cache_dir, archive=Path(archive).expanduser() if archive else None, classes=wanted, progress=progress)
        return read_folder(folder, source=CIFAR100, progress=progress)
    if source == SAMPLE:
        from staging.sample import SAMPLE_IMAGES, SAMPLE_SEED, SAMPLE_VERSION, write_sample

        def drawn(done: int, total: int) -> None:
            if progress is not None:
                progress(ProgressEvent(StagingPhase.DRAW, done, total))

        folder = write_sample(cache_dir / f"sample-{SAMPLE_VERSION}-{SAMPLE_IMAGES}-{SAMPLE_SEED}", SAMPLE_IMAGES, SAMPLE_SEED, drawn)
        return read_folder(folder, source=SAMPLE, classes=classes, progress=progress)
    folder = Path(source).expanduser()
    # The folder's own name: manifests travel, the paths of somebody's machine should not.
    return read_folder(folder, source=folder.resolve().name, classes=classes, progress=progress)
