"""Logs through snapshots: everything comes back, and what was saved before is not saved again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.core.base_backend import BackendDict
from moto.logs.models import logs_backends

from localcloud.database import Database
from localcloud.log_chunks import CHUNK_EVENTS
from localcloud.snapshots import Snapshots

ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    BackendDict.reset()
    yield tmp_path
    BackendDict.reset()


def write(*messages: str) -> None:
    backend = logs_backends[ACCOUNT][REGION]
    if "group" not in backend.groups:
        backend.create_log_group("group", {})
        backend.create_log_stream("group", "stream")
    backend.put_log_events("group", "stream", [{"timestamp": int(time.time() * 1000), "message": message} for message in messages])


def events() -> list[Any]:
    stream = logs_backends[ACCOUNT][REGION].groups["group"].streams["stream"]
    return [(event.event_id, event.ingestion_time, event.timestamp, event.message) for event in stream.events]


def reload(place: Path) -> None:
    database = Database(place / "state.db")
    Snapshots(database, place).flush(everything=True)
    BackendDict.reset()
    Snapshots(database, place).load()
    database.close()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 2 * CHUNK_EVENTS + 1), min_size=1, max_size=4))
def test_everything_comes_back_however_much_there_is_between_snapshots(place: Path, batches: list[int]) -> None:
    BackendDict.reset()
    written: list[str] = []
    for batch in batches:
        lines = [f"line {len(written) + number} é\n" for number in range(batch)]
        write(*lines)
        written += lines
        before = events()
        reload(place)
        assert events() == before
        assert [event[3] for event in events()] == written
    stream = logs_backends[ACCOUNT][REGION].groups["group"].streams["stream"]
    assert stream.log_group is logs_backends[ACCOUNT][REGION].groups["group"]


def test_a_full_chunk_is_written_once(place: Path) -> None:
    database = Database(place / "state.db")
    snapshots = Snapshots(database, place)
    write(*(f"{'x' * 100} {number}" for number in range(3 * CHUNK_EVENTS)))
    snapshots.flush(everything=True)
    first = {path.name: path.stat().st_mtime_ns for path in (place / "blobs").iterdir()}
    write("one more")
    snapshots.flush(everything=True)
    assert {path.name: path.stat().st_mtime_ns for path in (place / "blobs").iterdir()} == first
    assert len(first) == 3
    # What is pickled each time is the streams' frame and what came since, not the events.
    assert len(database.read_snapshots()["logs"]) < 10_000
    database.close()
