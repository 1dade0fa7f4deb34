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
#: From which a photo's format is told.
_FIRST_BYTES = 512
_SHOWN_REFUSALS = 20


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
    """The deployed state machine; `arn` is that of the alias through which executions are started, `max_bytes` what it takes."""

    def __init__(self, target: Target, state_machine_arn: str, bucket: str, max_bytes: int = MAX_IMAGE_BYTES) -> None:
        # One client each for all threads, with a connection for each thread.
        from botocore.config import Config

        config = Config(max_pool_connections=2 * PARALLEL)
        self._states = target.session.client("stepfunctions", config=config)
        self._s3 = target.session.client("s3", config=config)
        self.arn = state_machine_arn
        self._bucket = bucket
        self._max_bytes = max_bytes

    def classify(
        self, images: Sequence[str], threshold: float | None = None, done: Callable[[], None] = lambda: None
    ) -> Iterator[Classification]:
        """Classify photos, several at a time, and yield what became of each in the order given.

        Args:
            images: Paths of files, or S3 URIs.
            threshold: Confidence from which an inference is accepted; None takes the deployed one.
            done: Called once for each photo that is finished.

        Raises:
            SconesError: A file is no photo that the workflow takes (before anything is sent), or an execution does not end.
        """
        self._check_files(images)

        def one(image: str) -> Classification:
            classification = self._classify(image, threshold)
            done()
            return classification

        with ThreadPoolExecutor(PARALLEL) as pool:
            yield from pool.map(one, images)

    def plan(self, images: Sequence[str]) -> list[PlannedPhoto]:
        """Return what `classify` would send; sends nothing.

        Raises:
            SconesError: A photo cannot be read, or the workflow would not take it.
            botocore.exceptions.ClientError: The workflow is not there any more, or may not be looked at.
        """
        self._check_files(images)
        self._states.describe_state_machine_alias(stateMachineAliasArn=self.arn)
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = list(pool.map(self._plan, images))
        _raise_all([refused for refused in found if isinstance(refused, SconesError)], len(images))
        return [photo for photo in found if isinstance(photo, PlannedPhoto)]

    def _check_files(self, images: Sequence[str]) -> None:
        files = [image for image in images if not image.startswith("s3://")]
        refusals = [_refusal(image, self._max_bytes) for image in files]
        _raise_all([refused for refused in refusals if refused is not None], len(images))

    def _plan(self, image: str) -> PlannedPhoto | SconesError:
        if not image.startswith("s3://"):
            body, key = _content(image)
            return PlannedPhoto(image, f"s3://{self._bucket}/{key}", len(body), True)
        from botocore.exceptions import ClientError, ParamValidationError

        bucket, _, key = image.removeprefix("s3://").partition("/")
        try:
            size = self._s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
            refused = _refused_size(image, size, self._max_bytes)
            if refused is None:
                answer = self._s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_FIRST_BYTES - 1}")
                refused = _refused_content(image, answer["Body"].read())
        except (ClientError, ParamValidationError) as error:
            return SconesError(f"{image} cannot be read: {error}", "Give paths of photos, or S3 URIs: s3://BUCKET/KEY", ExitCode.USAGE)
        return refused or PlannedPhoto(image, image, size, False)

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


def _raise_all(refusals: Sequence[SconesError], photos: int) -> None:
    """Raise one SconesError for all of them; none for none."""
    if len(refusals) == 1:
        raise refusals[0]
    if refusals:
        lines = [refused.message for refused in refusals[:_SHOWN_REFUSALS]]
        if len(refusals) > len(lines):
            lines.append(f"... and {len(refusals) - len(lines)} more")
        hints = dict.fromkeys(refused.hint for refused in refusals if refused.hint)
        text = "\n  ".join([f"{len(refusals)} of {photos} photos cannot be classified, so none was sent:", *lines])
        raise SconesError(text, "\n".join(hints) or None, ExitCode.USAGE)


def _refusal(image: str, max_bytes: int) -> SconesError | None:
    """Return why a file cannot be a photo that the workflow takes, or None."""
    path = Path(image)
    if "://" in image:
        return SconesError(f"{image} is no S3 URI", "Download the photo, then give its path.", ExitCode.USAGE)
    if not image or not path.exists():
        return SconesError(f"There is no file {image!r}", "Give paths of photos, or S3 URIs.", ExitCode.USAGE)
    if not path.is_file():
        hint = f"Give the photos in it: {path}/*" if path.is_dir() else "Give paths of photos, or S3 URIs."
        return SconesError(f"{path} is not a file", hint, ExitCode.USAGE)
    try:
        with path.open("rb") as file:
            beginning = file.read(_FIRST_BYTES)
    except OSError as error:
        return SconesError(f"{path} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE)
    return _refused_size(image, path.stat().st_size, max_bytes) or _refused_content(image, beginning)


def _refused_size(image: str, size: int, max_bytes: int) -> SconesError | None:
    if size == 0:
        return SconesError(f"{image} is empty (0 bytes)", "Copy the photo again.", ExitCode.USAGE)
    if size > max_bytes:
        return SconesError(
            f"{image} has {size:,} bytes; the workflow takes photos of at most {max_bytes:,}",
            "Scale it down, then try again.",
            ExitCode.USAGE,
        )
    return None


def _refused_content(image: str, beginning: bytes) -> SconesError | None:
    """What the workflow's first function says of the first bytes."""
    from lambdas.common.errors import UnsupportedImageError
    from lambdas.common.images import detect_content_type

    try:
        detect_content_type(beginning)
    except UnsupportedImageError as error:
        reason, _, hint = str(error).removeprefix("The object ").partition(". ")
        return SconesError(f"{image} {reason}", hint, ExitCode.USAGE)
    return None
