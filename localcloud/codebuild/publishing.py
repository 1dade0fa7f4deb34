"""Where a build's artifacts go: zips or files in S3, or what CodePipeline takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.codebuild.artifacts import zip_files
from localcloud.codebuild.errors import PhaseFailure
from localcloud.codebuild.requests import S3Object
from localcloud.object_store import ObjectStore, ObjectUnavailable

Json = Any


def zip_location(artifacts: Mapping[str, Json], build_id: str) -> S3Object:
    """Return where a project's artifact is put (its object, or with packaging NONE the folder of its files).

    Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_ProjectArtifacts.html.
    """
    path = (artifacts.get("path") or "").strip("/")
    build = build_id.rpartition(":")[2] if artifacts.get("namespaceType") == "BUILD_ID" else ""
    name = artifacts["name"].strip("/")
    return S3Object(artifacts["location"].removeprefix("arn:aws:s3:::"), "/".join(filter(None, (path, build, name))))


def upload_zip(objects: ObjectStore, target: S3Object, files: Mapping[str, Path]) -> dict[str, str]:
    """Put files as one zip; return what a build says of it.

    Raises:
        PhaseFailure: It cannot be put.
    """
    body = zip_files(files)
    _write(objects, target.uri, body)
    return {
        "location": target.arn,
        "md5sum": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "sha256sum": hashlib.sha256(body).hexdigest(),
    }


def upload_files(objects: ObjectStore, target: S3Object, files: Mapping[str, Path]) -> dict[str, str]:
    """Put files one by one below a folder; return what a build says of them.

    Raises:
        PhaseFailure: They cannot be put.
    """
    for name, path in files.items():
        _write(objects, "/".join(filter(None, (f"s3://{target.bucket}", target.key, name))), path.read_bytes())
    return {"location": target.arn.rstrip("/")}


def _write(objects: ObjectStore, uri: str, body: bytes) -> None:
    try:
        objects.write(uri, body)
    except ObjectUnavailable as error:
        raise PhaseFailure("CLIENT_ERROR", f"Failed to upload artifacts: NoSuchBucket: {error}") from error
