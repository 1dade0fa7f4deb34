"""moto's state through a snapshot and back: what is shared stays shared, and works."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from moto.core.base_backend import BackendDict
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends
from requests.structures import CaseInsensitiveDict

from localcloud.database import Database
from localcloud.snapshots import Snapshots

ACCOUNT = "123456789012"


@pytest.fixture
def reload(tmp_path: Path) -> Any:
    """Return a function that saves all of moto, forgets it, and loads it again."""

    def again() -> None:
        database = Database(tmp_path / "state.db")
        Snapshots(database, tmp_path).flush(everything=True)
        BackendDict.reset()
        Snapshots(database, tmp_path).load()
        database.close()

    BackendDict.reset()
    yield again
    BackendDict.reset()


def body(bucket: str, key: str) -> bytes:
    found = s3_backends[ACCOUNT]["aws"].get_object(bucket, key)
    assert found is not None
    return found.value


def test_a_queue_still_wakes_its_waiters(reload: Any) -> None:
    sqs_backends[ACCOUNT]["us-east-1"].create_queue("queue", {})
    reload()
    backend = sqs_backends[ACCOUNT]["us-east-1"]
    received: list[Any] = []
    waiter = threading.Thread(target=lambda: received.extend(backend.receive_message("queue", 1, 10, 30)))
    waiter.start()
    backend.send_message("queue", "hello", {})
    waiter.join(20)
    assert [message.body for message in received] == ["hello"]


def test_an_overwritten_object_is_saved_as_it_is_now(reload: Any) -> None:
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    backend.put_object("bucket", "key", b"old")
    reload()
    assert body("bucket", "key") == b"old"
    s3_backends[ACCOUNT]["aws"].put_object("bucket", "key", b"new")
    reload()
    assert body("bucket", "key") == b"new"


def test_bodies_that_nothing_refers_to_are_dropped(reload: Any, tmp_path: Path) -> None:
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    backend.put_object("bucket", "a", b"same")
    backend.put_object("bucket", "b", b"same")
    reload()
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    for key in ("a", "b"):
        s3_backends[ACCOUNT]["aws"].delete_object("bucket", key)
    reload()
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_service_that_cannot_be_saved_does_not_keep_the_others_from_it(reload: Any) -> None:
    s3_backends[ACCOUNT]["aws"].create_bucket("bucket", "us-east-1")
    s3_backends[ACCOUNT]["aws"].put_object("bucket", "key", b"kept")
    sqs_backends[ACCOUNT]["us-east-1"].__dict__["unsaveable"] = (number for number in range(1))
    reload()
    assert body("bucket", "key") == b"kept"


def test_an_object_that_was_uploaded_in_parts_is_saved(reload: Any) -> None:
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    upload = backend.create_multipart_upload("bucket", "key", CaseInsensitiveDict(), "STANDARD", {}, None, "AES256", "")
    etag = backend.upload_part("bucket", upload.id, 1, b"all of it").etag
    backend.complete_multipart_upload("bucket", upload.id, iter([(1, etag)]))
    reload()
    assert body("bucket", "key") == b"all of it"
