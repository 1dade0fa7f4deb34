"""What can go wrong while staging, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping


class StagingError(Exception):
    """Indicates that images could not be staged. `message` says what is wrong and where, `hint` what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class SourceNotFoundError(StagingError):
    """Indicates that SOURCE names neither a folder that can be read nor a built-in source."""


class DatasetRefusedError(StagingError):
    """Indicates images that no classifier can be trained on; nothing was uploaded. `counts`: images per class found."""

    def __init__(self, message: str, hint: str, counts: Mapping[str, int]) -> None:
        super().__init__(message, hint)
        self.counts = dict(counts)


class UnknownClassError(StagingError):
    """Indicates that a class was asked for which the source does not have."""


class DownloadError(StagingError):
    """Indicates that the archive could not be downloaded."""


class ArchiveError(StagingError):
    """Indicates that an archive is not the official one, or is damaged."""


class UploadError(StagingError):
    """Indicates that S3 refused or could not be reached; staging again goes on where it stopped."""
