"""What executions need of the rest of the region, and the region as such a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from localcloud.errors import ServiceError
from localcloud.messaging import MessageRefused, send_to_queue
from localcloud.object_store import ObjectNotFound, parse_s3_uri

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

T = TypeVar("T")

#: Seconds after which a wait looks again though no document has changed.
_LOOK_AGAIN_SECONDS = 5.0


class HostClosing(Exception):
    """Indicates that the region is shutting down: leave everything as it is."""


@dataclass(frozen=True)
class Invocation:
    """What a Lambda function answered.

    Attributes:
        error: The FunctionError header, None after success.
        payload: The parsed answer.
    """

    error: str | None
    payload: Any


class Host(Protocol):
    """The rest of the region."""

    def call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Call a SageMaker operation with validated parameters.

        Raises:
            ServiceError: It is refused.
        """

    def invoke_function(self, function: str, payload: Any) -> Invocation:
        """Invoke a Lambda function and wait for its answer.

        Raises:
            ServiceError: It is refused.
        """

    def send_message(self, queue_url: str, body: str) -> None:
        """Send an SQS message.

        Raises:
            ServiceError: It is refused.
        """

    def read_object(self, uri: str) -> bytes:
        """Return an S3 object's bytes.

        Raises:
            ObjectNotFound: There is none.
        """

    def has_objects(self, uri: str) -> bool:
        """Return whether any object is at or below an S3 URI."""

    def emit(self, detail_type: str, detail: dict[str, Any], resources: list[str]) -> None:
        """Send an event to the default event bus, as SageMaker."""

    def log(self, group: str, stream: str, line: str) -> None:
        """Write one line to CloudWatch Logs."""

    def wait_until(self, condition: Callable[[], T | None]) -> T:
        """Return *condition*'s first value that is not None; it is asked again whenever something in the region changes.

        Raises:
            HostClosing: The region is shutting down.
        """

    def announce(self) -> None:
        """Wake everyone in `wait_until`."""

    @property
    def closing(self) -> bool:
        """Whether the region is shutting down."""


class CloudHost:
    """A running region.

    Args:
        cloud: The region.
        call: How to call a SageMaker operation (see `Host.call`).
    """

    def __init__(self, cloud: Cloud, call: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._cloud = cloud
        self.call = call
        self._closing = False

    @property
    def closing(self) -> bool:
        """Whether the region is shutting down."""
        return self._closing

    def close(self) -> None:
        """Let every wait end with HostClosing."""
        self._closing = True
        self.announce()

    def invoke_function(self, function: str, payload: Any) -> Invocation:
        """Invoke a Lambda function and wait for its answer."""
        service: Any = self._cloud.services.get("lambda")
        if service is None:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {function}")
        answer = service.invoke_function(function, json.dumps(payload).encode())
        body = answer.payload
        return Invocation(answer.function_error, json.loads(body) if body else None)

    def send_message(self, queue_url: str, body: str) -> None:
        """Send an SQS message."""
        try:
            send_to_queue(self._cloud, self._cloud.arn("sqs", queue_url.rpartition("/")[2]), body)
        except MessageRefused as error:
            raise ServiceError(error.code, str(error)) from error

    def read_object(self, uri: str) -> bytes:
        """Return an S3 object's bytes."""
        return self._cloud.objects.read(uri)

    def has_objects(self, uri: str) -> bool:
        """Return whether any object is at or below an S3 URI."""
        try:
            bucket, prefix = parse_s3_uri(uri)
            keys = self._cloud.objects.keys(bucket, prefix.rstrip("/"))
        except ObjectNotFound:
            return False
        folder = prefix.rstrip("/") + "/"
        return any(key == prefix or key.startswith(folder) or folder == "/" for key in keys)

    def emit(self, detail_type: str, detail: dict[str, Any], resources: list[str]) -> None:
        """Send an event to the default event bus, as SageMaker."""
        if "events" in self._cloud.services:
            self._cloud.emit("aws.sagemaker", detail_type, detail, resources)

    def log(self, group: str, stream: str, line: str) -> None:
        """Write one line to CloudWatch Logs."""
        self._cloud.logs.write(group, stream, line)

    def wait_until(self, condition: Callable[[], T | None]) -> T:
        """Return *condition*'s first value that is not None."""
        while True:
            # Read before looking: a change in between is then seen at once.
            version = self._cloud.db.version
            if self._closing:
                raise HostClosing
            value = condition()
            if value is not None:
                return value
            self._cloud.db.wait_for_change(version, _LOOK_AGAIN_SECONDS)

    def announce(self) -> None:
        """Wake everyone in `wait_until`."""
        self._cloud.db.announce()
