"""Where a build's sources come from: S3, or what CodePipeline hands over (which is in S3 as well)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localcloud.codebuild.artifacts import unzip
from localcloud.codebuild.errors import PhaseFailure, invalid
from localcloud.codebuild.requests import S3Object
from localcloud.object_store import ObjectStore, ObjectUnavailable

Source = dict[str, Any]


def parse_location(location: str) -> S3Object:
    """Read an S3 source's location: ``bucket/path/object.zip`` or ``bucket/path/folder/``, also as ARN.

    Raises:
        ServiceError: It is neither.
    """
    bucket, _, key = location.removeprefix("arn:aws:s3:::").partition("/")
    if not bucket or not key:
        raise invalid(f"Invalid project source: location must be a valid S3 source: {location}")
    return S3Object(bucket, key)


def download(objects: ObjectStore, source: S3Object, folder: Path) -> None:
    """Bring a source into a folder: a zip is unpacked, a location that ends with "/" is copied.

    Raises:
        PhaseFailure: There is no such source.
    """
    try:
        if source.key.endswith("/"):
            objects.download(source.uri, folder)
            return
        body = objects.read(source.uri, source.version)
    except ObjectUnavailable as error:
        what = "bucket" if str(error).startswith("The S3 bucket") else "key"
        version = f" and source version {source.version}" if source.version else ""
        message = f"NoSuch{what.capitalize()}: The specified {what} does not exist. status code: 404 for source {source.arn}{version}"
        raise PhaseFailure("CLIENT_ERROR", message) from error
    unzip(body, folder)


def read_buildspec(objects: ObjectStore, buildspec: str, source: Path | None) -> str:
    """Return the text of a buildspec.

    Args:
        objects: S3.
        buildspec: The text itself, a path in the source, or the ARN of an object; empty for ``buildspec.yml``.
        source: The source's folder; None when there is none.

    Raises:
        PhaseFailure: There is no such file.
    """
    if is_inline(buildspec):
        return buildspec
    try:
        if buildspec.startswith("arn:aws:s3:::"):
            body = objects.read(parse_location(buildspec).uri)
        else:
            path = (source or Path()) / (buildspec or "buildspec.yml")
            if source is None or not path.is_file():
                raise PhaseFailure("YAML_FILE_ERROR", f"YAML file does not exist: stat {path}: no such file or directory")
            body = path.read_bytes()
        return body.decode("utf-8-sig")
    except ObjectUnavailable as error:
        raise PhaseFailure("YAML_FILE_ERROR", f"YAML file does not exist: {error}") from error
    except UnicodeDecodeError as error:
        raise PhaseFailure("YAML_FILE_ERROR", f"the file is not UTF-8: {error.reason} at byte {error.start}") from error


def is_inline(buildspec: str) -> bool:
    """Return whether a buildspec is the text itself, and not where it is."""
    return "\n" in buildspec or buildspec.lstrip().startswith("{")
