"""Photos through the production workflow: upload, start an execution, wait for its result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scones.errors import ExitCode, SconesError
from staging.folder import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from scones.target import Target

#: An execution normally takes tens of milliseconds; its longest path with every retry takes about two minutes.
WAIT_SECONDS = 300.0
PARALLEL = 8


@dataclass(frozen=True)
class Classification:
    """What became of one photo.

    Attributes:
        image: The path or S3 URI as given.
        execution_arn: The workflow execution.
        result: The execution's result, or None when it failed.
        error: The error's name when it failed.
        cause: What to do about the error.
    """

    image: str
    execution_arn: str
    result: dict[str, Any] | None
    error: str | None = None
    cause: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the classification as --json prints it: the image and the execution's result, or the error."""
        if self.result is not None:
            return {"image": self.image, **self.result, "execution_arn": self.execution_arn}
        return {"image": self.image, "error": self.error, "cause": self.cause, "execution_arn": self.execution_arn}


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo that would be classified.

    Attributes:
        image: The path or S3 URI as given.
        uri: Where the workflow would read it.
        size: Its bytes.
        is_file: Whether it would be uploaded first.
    """

    image: str
    uri: str
    size: int
    is_file: bool


class Workflow:
    """The deployed state machine; `arn` is that of the alias through which executions are started."""

    def __init__(self, target: Target, state_machine_arn: str, bucket: str) -> None:
        # One client each for all threads, with a connection for each thread.
        from botocore.config import Config

        config = Config(max_pool_connections=2 * PARALLEL)
        self._states = target.session.client("stepfunctions", config=config)
        self._s3 = target.session.client("s3", config=config)
        self.arn = state_machine_arn
        self._bucket = bucket

    def classify(
        self, images: Sequence[str], threshold: float | None = None, done: Callable[[], None] = lambda: None
    ) -> Iterator[Classification]:
        """Classify photos, several at a time, and yield what became of each in the order given.

        Args:
            images: Paths of files, or S3 URIs.
            threshold: Confidence from which an inference is accepted; None takes the deployed one.
            done: Called once for each photo that is finished.

        Raises:
            SconesError: A file cannot be read (before anything is sent), or an execution does not end.
        """
        _check_files(images)

        def one(image: str) -> Classification:
            classification = self._classify(image, threshold)
            done()
            return classification

        with ThreadPoolExecutor(PARALLEL) as pool:
            yield from pool.map(one, images)

    def plan(self, images: Sequence[str]) -> list[PlannedPhoto]:
        """Return what `classify` would send; sends nothing.

        Raises:
            SconesError: A photo cannot be read.
            botocore.exceptions.ClientError: The workflow is not there any more, or may not be looked at.
        """
        _check_files(images)
        self._states.describe_state_machine_alias(stateMachineAliasArn=self.arn)
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(self._plan, images))

    def _plan(self, image: str) -> PlannedPhoto:
        if not image.startswith("s3://"):
            body, key = _content(image)
            return PlannedPhoto(image, f"s3://{self._bucket}/{key}", len(body), True)
        from botocore.exceptions import ClientError, ParamValidationError

        bucket, _, key = image.removeprefix("s3://").partition("/")
        try:
            size = self._s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except (ClientError, ParamValidationError) as error:
            raise SconesError(
                f"{image} cannot be read: {error}", "Give paths of photos, or S3 URIs: s3://BUCKET/KEY", ExitCode.USAGE
            ) from error
        return PlannedPhoto(image, image, size, False)

    def _classify(self, image: str, threshold: float | None) -> Classification:
        bucket, key = self._locate(image)
        request: dict[str, Any] = {"s3_bucket": bucket, "s3_key": key}
        if threshold is not None:
            request["threshold"] = threshold
        arn = self._states.start_execution(stateMachineArn=self.arn, input=json.dumps(request))["executionArn"]
        execution = self._wait(arn)
        if execution["status"] == "SUCCEEDED":
            return Classification(image, arn, json.loads(execution["output"]))
        return Classification(image, arn, None, execution.get("error", execution["status"]), execution.get("cause", ""))

    def _locate(self, image: str) -> tuple[str, str]:
        if image.startswith("s3://"):
            bucket, _, key = image.removeprefix("s3://").partition("/")
            return bucket, key
        body, key = _content(image)
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return self._bucket, key

    def _wait(self, arn: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_SECONDS
        pause = 0.005
        while time.monotonic() < deadline:
            execution: dict[str, Any] = self._states.describe_execution(executionArn=arn)
            if execution["status"] != "RUNNING":
                return execution
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        raise SconesError(
            f"The execution {arn} did not end within {WAIT_SECONDS:.0f} s", "Look at it with: scones logs image-classification"
        )


def _content(image: str) -> tuple[bytes, str]:
    """Return a file's bytes and the key under which the workflow gets them."""
    path = Path(image)
    body = path.read_bytes()
    return body, f"inbox/{hashlib.sha256(body).hexdigest()}{path.suffix.lower()}"


def _check_files(images: Sequence[str]) -> None:
    """Raise SconesError for the first that is a file which cannot be a photo."""
    for image in images:
        if not image.startswith("s3://"):
            _check_file(image)


def _check_file(image: str) -> None:
    path = Path(image)
    if "://" in image:
        raise SconesError(f"{image} is no S3 URI", "Download the photo, then give its path.", ExitCode.USAGE)
    if not image or not path.exists():
        raise SconesError(f"There is no file {image!r}", "Give paths of photos, or S3 URIs.", ExitCode.USAGE)
    if not path.is_file():
        hint = f"Give the photos in it: {path}/*" if path.is_dir() else "Give paths of photos, or S3 URIs."
        raise SconesError(f"{path} is not a file", hint, ExitCode.USAGE)
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise SconesError(
            f"{path} has {path.stat().st_size:,} bytes, more than any photo (at most {MAX_IMAGE_BYTES:,})",
            "Scale it down; the endpoint takes a few megabytes.",
            ExitCode.USAGE,
        )
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise SconesError(f"{path} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE) from error
