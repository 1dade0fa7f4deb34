"""S3's events for buckets with EventBridge notifications on.

moto sends them to its own events backend, which localcloud does not use: `install` takes the place of `moto.s3.notifications._send_event_bridge_message` and
gives events AWS's shape (https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html). Held by tests/integration/test_eventbridge.py.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import moto.s3.notifications

from localcloud.errors import ServiceError

if TYPE_CHECKING:
    from localcloud.eventbridge.service import EventBridgeService

log = logging.getLogger(__name__)

_REASONS = {
    "ObjectCreated:Put": "PutObject",
    "ObjectCreated:Post": "POST Object",
    "ObjectCreated:Copy": "CopyObject",
    "ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "ObjectRemoved:Delete": "DeleteObject",
    "ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
    "LifecycleExpiration:Delete": "Lifecycle Expiration",
    "LifecycleExpiration:DeleteMarkerCreated": "Lifecycle Expiration",
}
_DELETION_TYPES = {"Delete": "Permanently Deleted", "DeleteMarkerCreated": "Delete Marker Created"}


def install(service: EventBridgeService) -> Callable[[], None]:
    """Send S3's events to localcloud's EventBridge; the result undoes that."""
    original = moto.s3.notifications._send_event_bridge_message
    sequence = itertools.count()

    def send(account_id: str, bucket: Any, event_name: str, key: Any) -> None:
        name = str(getattr(event_name, "value", event_name)).removeprefix("s3:")
        detail_type = moto.s3.notifications._detail_type(event_name)
        stored: dict[str, Any] = {"key": key.name, "size": key.size, "etag": str(key.etag).strip('"')}
        if bucket.is_versioned and key.version_id:
            stored["version-id"] = key.version_id
        stored["sequencer"] = f"{time.time_ns() // 1000:016X}{next(sequence) & 0xFF:02X}"
        detail: dict[str, Any] = {
            "version": "0",
            "bucket": {"name": bucket.name},
            "object": stored,
            "request-id": uuid.uuid4().hex[:16].upper(),
            "requester": account_id,
            "source-ip-address": "127.0.0.1",
        }
        if name in _REASONS:
            detail["reason"] = _REASONS[name]
        if detail_type == "Object Deleted":
            del stored["size"]
            detail["deletion-type"] = _DELETION_TYPES.get(name.partition(":")[2], "Permanently Deleted")
        try:
            service.emit("aws.s3", detail_type, detail, [bucket.arn])
        except ServiceError as error:
            log.error("An event of the bucket %s was not sent: %s", bucket.name, error.message)

    moto.s3.notifications._send_event_bridge_message = send

    def remove() -> None:
        moto.s3.notifications._send_event_bridge_message = original

    return remove
