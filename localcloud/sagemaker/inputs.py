"""What a job reads from S3: prefixes and manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localcloud.errors import ServiceError, not_supported
from localcloud.object_store import ObjectNotFound, ObjectStore, ObjectUnavailable, parse_s3_uri

S3_PREFIX = "S3Prefix"
MANIFEST = "ManifestFile"


def check_source(data_type: str, where: str) -> None:
    """Refuse a kind of S3 source that is not downloaded here.

    Raises:
        ServiceError: It is neither a prefix nor a manifest.
    """
    if data_type not in (S3_PREFIX, MANIFEST):
        raise not_supported(f"{where}: S3DataType {data_type}")


def check_exists(objects: ObjectStore, uri: str, role_arn: str, region: str) -> None:
    """Refuse an S3 input under which there is nothing, as AWS does when a training job is created.

    Raises:
        ServiceError: With AWS's text.
    """
    try:
        bucket, prefix = parse_s3_uri(uri)
        if objects.keys(bucket, prefix):
            return
    except ObjectUnavailable:
        bucket = uri.removeprefix("s3://").partition("/")[0]
    raise ServiceError("ValidationException", _nothing_found(uri, bucket, role_arn, region))


def download(objects: ObjectStore, data_type: str, uri: str, target: Path) -> int:
    """Copy what an S3 data source names into the folder *target*; return the number of files.

    Raises:
        ObjectNotFound: There is nothing, or the manifest is not one.
        ObjectAccessDenied: The role may not read it.
        OSError: It cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    if data_type == S3_PREFIX:
        return objects.download(uri, target)
    prefix, names = read_manifest(uri, objects.read(uri))
    for name in names:
        path = target / name
        if not path.resolve().is_relative_to(target.resolve()):
            raise ObjectNotFound(f"The manifest {uri} names '{name}', which leaves the folder that it is downloaded to")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects.read(prefix + name))
    return len(names)


def read_manifest(uri: str, body: bytes) -> tuple[str, list[str]]:
    """Return a manifest's S3 prefix and the keys below it: ``[{"prefix": "s3://bucket/folder/"}, "a.png", "b/c.png"]``.

    Raises:
        ObjectNotFound: It is not a manifest.
    """
    try:
        content: Any = json.loads(body)
        first, *names = content
        prefix = first["prefix"]
        parse_s3_uri(prefix)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("not a string")
    except (ValueError, TypeError, KeyError, ObjectNotFound) as error:
        raise ObjectNotFound(f'{uri} is not a manifest: a JSON list of {{"prefix": "s3://…"}} and of keys below it') from error
    return prefix, names


def _nothing_found(uri: str, bucket: str, role_arn: str, region: str) -> str:
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists in the selected region ({region}), that '
        f'objects exist under that S3 prefix, and that the role "{role_arn}" has "s3:ListBucket" permissions on bucket "{bucket}".'
    )
