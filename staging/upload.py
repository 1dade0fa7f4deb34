"""From images on disk to a content-addressed prefix in S3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from staging.dataset import MANIFEST_NAME, Dataset, Progress, ProgressEvent, SourceImage, StagedDataset, StagingPhase, manifest_bytes
from staging.errors import SourceNotFoundError, StagingError, UploadError
from staging.sources import prepare

# boto3 makes its clients' classes at run time.
S3Client = Any
RAW_PREFIX = "raw"
# botocore keeps ten connections by default; more threads would only wait for them.
_UPLOAD_THREADS = 10
_UPLOADS_AHEAD = 4 * _UPLOAD_THREADS
_CONTENT_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp"}


def stage(
    source: str, *, s3_client: S3Client, bucket: str, cache_dir: Path, classes: Sequence[str] = (), progress: Progress | None = None
) -> StagedDataset:
    """Read a source, check it, and upload what S3 does not have yet to `s3://<bucket>/raw/<dataset digest>/`.

    See `prepare` for `source`, `cache_dir` and `classes`. The manifest is written last: a prefix without one is incomplete, and staging
    again completes it. Staging the same images again uploads nothing. `progress` is called from the calling thread only. Raises a
    StagingError that says what to do.
    """
    return upload(
        prepare(source, cache_dir=cache_dir, classes=classes, progress=progress), s3_client=s3_client, bucket=bucket, progress=progress
    )


def upload(dataset: Dataset, *, s3_client: S3Client, bucket: str, progress: Progress | None = None, dry_run: bool = False) -> StagedDataset:
    """Upload a prepared data set, see `stage`. With `dry_run` nothing is sent, and `uploaded` of the result is what would be.

    Raises UploadError, or SourceNotFoundError when a file changed since it was read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    digest = dataset.digest
    prefix = f"{RAW_PREFIX}/{digest}/"
    manifest = dataset.manifest()
    by_path = {image.path: image for image in dataset.images}
    try:
        there = _existing(s3_client, bucket, prefix, progress)
        missing = [image for path, image in by_path.items() if there.get(path) != image.size]
        complete = MANIFEST_NAME in there and not missing
        if not dry_run:
            _put_all(s3_client, bucket, prefix, missing, progress)
            if not complete:
                body = manifest_bytes(manifest)
                s3_client.put_object(Bucket=bucket, Key=prefix + MANIFEST_NAME, Body=body, ContentType="application/json")
    except (BotoCoreError, ClientError) as error:
        raise _senterror(error, bucket) from error
    return StagedDataset(
        uri=f"s3://{bucket}/{prefix}",
        digest=digest,
        counts=dataset.counts,
        uploaded=len(missing) + (not complete),
        skipped=len(by_path) - len(missing) + complete,
        manifest=manifest,
        ignored=dataset.ignored,
        warnings=(*dataset.notes, *_warnings(dataset)),
    )


def _existing(s3_client: S3Client, bucket: str, prefix: str, progress: Progress | None) -> dict[str, int]:
    """Objects below the prefix: path -> size in bytes."""
    sizes: dict[str, int] = {}
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            sizes[item["Key"].removeprefix(prefix)] = item["Size"]
        if progress is not None:
            progress(ProgressEvent(StagingPhase.COMPARE, len(sizes), None))
    return sizes


def _put_all(s3_client: S3Client, bucket: str, prefix: str, images: Sequence[SourceImage], progress: Progress | None) -> None:
    """Upload in parallel. The first failure is raised when the uploads under way have ended; no others are begun."""
    pending = iter(images)
    waiting: set[Future[None]] = set()
    done = 0
    with ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="upload") as pool:
        try:
            while True:
                waiting |= {pool.submit(_put, s3_client, bucket, prefix, image) for image in islice(pending, _UPLOADS_AHEAD - len(waiting))}
                if not waiting:
                    return
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for sent in finished:
                    sent.result()
                done += len(finished)
                if progress is not None:
                    progress(ProgressEvent(StagingPhase.UPLOAD, done, len(images)))
        finally:
            for sent in waiting:
                sent.cancel()


def _put(s3_client: S3Client, bucket: str, prefix: str, image: SourceImage) -> None:
    try:
        content = image.file.read_bytes()
    except OSError as error:
        raise SourceNotFoundError(
            f"{image.file} cannot be read any more: {error.strerror or error}", "Stage again; what was uploaded is not uploaded twice."
        ) from error
    digest = hashlib.sha256(content)
    if digest.hexdigest() != image.sha256:
        raise SourceNotFoundError(f"{image.file} changed while it was staged.", "Stage again when nothing writes to the folder.")
    # S3 computes the checksum of what arrives and refuses anything else.
    s3_client.put_object(
        Bucket=bucket,
        Key=prefix + image.path,
        Body=content,
        ContentType=_CONTENT_TYPES[image.file.suffix.lower()],
        ChecksumSHA256=base64.b64encode(digest.digest()).decode("ascii"),
    )


def _warnings(dataset: Dataset) -> list[str]:
    rule = "The preprocessing step fails on it unless conflicting labels are allowed."
    return [f"The same image is in several classes: {', '.join(group)}. {rule}" for group in dataset.conflicts()]


def _senterror(error: Exception, bucket: str) -> StagingError:
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

    resume = "Then stage again: what was uploaded is not uploaded twice."
    if isinstance(error, NoCredentialsError):
        return UploadError("No AWS credentials were found.", f"Log in or set AWS_PROFILE. {resume}")
    if isinstance(error, EndpointConnectionError):
        return UploadError(f"S3 cannot be reached: {error}", f"Check the endpoint and the network. {resume}")
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        if code == "NoSuchBucket":
            return UploadError(
                f"The bucket {bucket} does not exist.", f"Deploy the platform stack, which makes it, or name another. {resume}"
            )
        if code in ("AccessDenied", "403"):
            return UploadError(f"No permission to write to {bucket}: {error}", f"s3:ListBucket and s3:PutObject on it are needed. {resume}")
    return UploadError(f"The upload to {bucket} stopped: {error}", "Stage again: what was uploaded is not uploaded twice.")
