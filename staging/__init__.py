"""Where images come from (a folder, CIFAR-100, the drawn sample) and how they reach S3, content-addressed.

`prepare` reads a source and checks it, `stage` also uploads it. Neither touches the terminal: progress goes to a callback, mistakes are
StagingErrors.
"""

from staging.dataset import (
    Dataset,
    IgnoredFile,
    ProgressEvent,
    SourceImage,
    Split,
    StagedDataset,
    StagingPhase,
)
from staging.errors import (
    ArchiveError,
    DatasetRefusedError,
    DownloadError,
    SourceNotFoundError,
    StagingError,
    UnknownClassError,
    UploadError,
)
from staging.sources import prepare
from staging.upload import stage, upload

__all__ = [
    "ArchiveError",
    "Dataset",
    "DatasetRefusedError",
    "DownloadError",
    "IgnoredFile",
    "ProgressEvent",
    "SourceImage",
    "SourceNotFoundError",
    "Split",
    "StagedDataset",
    "StagingError",
    "StagingPhase",
    "UnknownClassError",
    "UploadError",
    "prepare",
    "stage",
    "upload",
]
