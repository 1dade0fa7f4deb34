"""Job code as content-addressed folders in S3: the same files always have the same prefix, so an unchanged project hits the step cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import DefinitionError

STEPS_DIR = Path(__file__).resolve().parent.parent / "steps"
_PREFIX = "code"
_IGNORED_FOLDERS = frozenset({"__pycache__"})
_IGNORED_SUFFIXES = frozenset({".pyc", ".pyo"})


@dataclass(frozen=True)
class CodeBundle:
    """Files of one folder: POSIX path relative to it, and content."""

    files: Mapping[str, bytes]

    @classmethod
    def from_folder(cls, folder: Path) -> CodeBundle:
        """Read a folder without compiled Python files and hidden files.

        Raises:
            DefinitionError: The folder does not exist or holds no file.
        """
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _source_files(folder)}
        if not files:
            raise DefinitionError(f"the folder with the job scripts, {folder}, does not exist or is empty; run from a complete checkout")
        return cls(files)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the sorted names and contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{hashlib.sha256(self.files[name]).hexdigest()}\n".encode())
        return digest.hexdigest()


def _source_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _IGNORED_FOLDERS for part in parts)
        if path.is_file() and not hidden and path.suffix not in _IGNORED_SUFFIXES:
            yield path


@dataclass
class CodeStore:
    """The bundles that a definition refers to; naming them needs no network, `upload` puts them into the bucket.

    Attributes:
        bucket: Bucket that holds the code.
        bundles: Everything named so far, by digest.
    """

    bucket: str
    bundles: dict[str, CodeBundle] = field(default_factory=dict)

    def add(self, bundle: CodeBundle) -> str:
        """Remember the bundle for `upload` and return the S3 URI of its folder, with a slash at its end."""
        self.bundles[bundle.digest] = bundle
        return f"s3://{self.bucket}/{_key(bundle.digest)}"

    def missing(self, s3: Any) -> dict[str, bytes]:
        """Return, by key, every file that a boto3 S3 client does not find in the bucket; a key names its content, so what is there is right."""
        missing: dict[str, bytes] = {}
        for digest, bundle in self.bundles.items():
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=_key(digest))
            present = {item["Key"] for page in pages for item in page.get("Contents", ())}
            missing |= {_key(digest) + name: content for name, content in bundle.files.items() if _key(digest) + name not in present}
        return missing

    def upload(self, s3: Any) -> int:
        """Put every missing file into the bucket and return how many there were."""
        missing = self.missing(s3)
        for key, content in missing.items():
            s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return len(missing)


def _key(digest: str) -> str:
    return f"{_PREFIX}/{digest}/"
