"""Keeping an S3 prefix like a folder while a job writes into it: checkpoints, and outputs with S3UploadMode Continuous."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from localcloud.object_store import ObjectStore, ObjectUnavailable

log = logging.getLogger(__name__)

#: Seconds between two looks at the folder.
INTERVAL_SECONDS = 0.5

_Seen = tuple[int, int]


class FolderSync:
    """Uploads a folder's new and changed files from a thread of its own until `finish`. Files that are deleted stay in S3, as on AWS.

    Args:
        objects: Where to.
        folder: What is uploaded; it need not exist.
        uri: The S3 prefix.
    """

    def __init__(self, objects: ObjectStore, folder: Path, uri: str) -> None:
        self._objects = objects
        self._folder = folder
        self._uri = uri.rstrip("/")
        self._seen: dict[Path, _Seen] = {}
        self._uploaded: dict[Path, _Seen] = self._scan()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sync {uri}", daemon=True)

    def start(self) -> None:
        """Begin. What is in the folder now came from S3 and is not uploaded."""
        self._thread.start()

    def finish(self, upload: bool = True) -> None:
        """End the thread and, if *upload*, upload what is left.

        Raises:
            ObjectUnavailable: The bucket is gone, or the role may not write to it.
        """
        self._done.set()
        self._thread.join()
        if upload:
            self._upload(self._scan())

    def _run(self) -> None:
        while not self._done.wait(INTERVAL_SECONDS):
            now = self._scan()
            # A file that changed since the last look may be half written.
            quiet = {path: seen for path, seen in now.items() if self._seen.get(path) == seen}
            self._seen = now
            try:
                self._upload(quiet)
            except (ObjectUnavailable, OSError) as error:
                log.warning("%s cannot be uploaded to %s yet: %s", self._folder, self._uri, error)

    def _upload(self, files: dict[Path, _Seen]) -> None:
        for path, seen in sorted(files.items()):
            if self._uploaded.get(path) != seen:
                self._objects.write(f"{self._uri}/{path.relative_to(self._folder).as_posix()}", path.read_bytes())
                self._uploaded[path] = seen

    def _scan(self) -> dict[Path, _Seen]:
        found: dict[Path, _Seen] = {}
        for path in self._folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                found[path] = (status.st_size, status.st_mtime_ns)
        return found
