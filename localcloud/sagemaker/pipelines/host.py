"""What executions need of the rest of the region, and the region as such a host."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from localcloud.errors import ServiceError
from localcloud.iam.principals import RoleSession
from localcloud.messaging import MessageRefused, send_to_queue
from localcloud.object_store import ObjectStore, ObjectUnavailable, parse_s3_uri
from localcloud.sagemaker.values import SESSION_NAME

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
            ObjectUnavailable: There is none, or the role may not read it.
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

    def acting_as(self, role_arn: str) -> Host:
        """Return the same region to a role: what it may not do is refused."""


class CloudHost:
    """A running region.

    Args:
        cloud: The region.
        call: How to call a SageMaker operation (see `Host.call`).
        session: The role that acts; None for SageMaker itself.
        closing: Set when the region is shutting down.
    """

    def __init__(
        self,
        cloud: Cloud,
        call: Callable[[str, dict[str, Any]], dict[str, Any]],
        session: RoleSession | None = None,
        closing: threading.Event | None = None,
    ) -> None:
        self._cloud = cloud
        self._call = call
        self._session = session
        self._closing = closing or threading.Event()

    @property
    def closing(self) -> bool:
        """Whether the region is shutting down."""
        return self._closing.is_set()

    def close(self) -> None:
        """Let every wait end with HostClosing."""
        self._closing.set()
        self.announce()

    def acting_as(self, role_arn: str) -> CloudHost:
        """Return the same region to a role."""
        return CloudHost(self._cloud, self._call, RoleSession(role_arn, SESSION_NAME), self._closing)

    def call(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Call a SageMaker operation."""
        self._authorize("sagemaker", operation, params)
        return self._call(operation, params)

    def _authorize(self, service: str, operation: str, params: dict[str, Any]) -> None:
        if self._session is not None:
            self._cloud.iam.authorize(self._session, service, operation, params)

    def invoke_function(self, function: str, payload: Any) -> Invocation:
        """Invoke a Lambda function and wait for its answer."""
        service: Any = self._cloud.services.get("lambda")
        if service is None:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {function}")
        self._authorize("lambda", "Invoke", {"FunctionName": function})
        answer = service.invoke_function(function, json.dumps(payload).encode())
        body = answer.payload
        return Invocation(answer.function_error, json.loads(body) if body else None)

    def send_message(self, queue_url: str, body: str) -> None:
        """Send an SQS message."""
        self._authorize("sqs", "SendMessage", {"QueueUrl": queue_url})
        try:
            send_to_queue(self._cloud, self._cloud.arn("sqs", queue_url.rpartition("/")[2]), body)
        except MessageRefused as error:
            raise ServiceError(error.code, str(error)) from error

    @property
    def _objects(self) -> ObjectStore:
        objects = self._cloud.objects
        return objects if self._session is None else objects.acting_as(self._session.role_arn, self._session.name)

    def read_object(self, uri: str) -> bytes:
        """Return an S3 object's bytes."""
        return self._objects.read(uri)

    def has_objects(self, uri: str) -> bool:
        """Return whether any object is at or below an S3 URI."""
        try:
            bucket, prefix = parse_s3_uri(uri)
            keys = self._objects.keys(bucket, prefix.rstrip("/"))
        except ObjectUnavailable:
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
            if self.closing:
                raise HostClosing
            value = condition()
            if value is not None:
                return value
            self._cloud.db.wait_for_change(version, _LOOK_AGAIN_SECONDS)

    def announce(self) -> None:
        """Wake everyone in `wait_until`."""
        self._cloud.db.announce()
