"""Whether a folder can be made and written to, without doing it."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Check what can be known without making anything: the folder, or the nearest of its parents that is there, can be written.

    Raises:
        OSError: It cannot; the error is the one that making it would end with.
    """
    for place in (folder, *folder.absolute().parents):
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return
