"""Log events in snapshots: full chunks of a stream are written once, as files, and only what came since is pickled again.

Logs are what grows while a region works; pickling all of them with every snapshot would take more time from one minute to the next.
"""

from __future__ import annotations

import json
from typing import Any

from moto.logs.models import LogEvent, LogStream

#: Events of one chunk.
CHUNK_EVENTS = 500
_ATTRIBUTE = "localcloud_chunks"


class Chunk:
    """A full chunk of one stream's events.

    Attributes:
        blob: Name of the file that holds it; empty until it is written.
        content: Its events as JSON; empty once it is written.
    """

    def __init__(self, blob: str, content: bytes = b"") -> None:
        self.blob = blob
        self.content = content


def stream_state(stream: LogStream) -> dict[str, Any]:
    """Return what a stream is restored from: its attributes, its full chunks, and the other events as JSON."""
    attributes = dict(stream.__dict__)
    # Only ever appended to, by one thread at a time; what comes after this line is the next snapshot's.
    events: list[LogEvent] = attributes.pop("events")
    count = len(events)
    chunks: list[Chunk] = attributes.pop(_ATTRIBUTE, [])
    for begin in range(len(chunks) * CHUNK_EVENTS, count - CHUNK_EVENTS + 1, CHUNK_EVENTS):
        chunks = [*chunks, Chunk("", _encode(events[begin : begin + CHUNK_EVENTS]))]
    stream.__dict__[_ATTRIBUTE] = chunks
    return {"attributes": attributes, "chunks": chunks, "rest": _encode(events[len(chunks) * CHUNK_EVENTS : count])}


def new_stream() -> LogStream:
    """Return a stream without attributes, for `restore_stream`."""
    stream: LogStream = object.__new__(LogStream)
    return stream


def restore_stream(stream: LogStream, state: dict[str, Any]) -> None:
    """Make a stream what `stream_state` saw; chunks have been read into their `content`."""
    events = [event for chunk in state["chunks"] for event in _decode(chunk.content)]
    stream.__dict__.update(state["attributes"], events=events + _decode(state["rest"]))
    stream.__dict__[_ATTRIBUTE] = [Chunk(chunk.blob) for chunk in state["chunks"]]


def _encode(events: list[LogEvent]) -> bytes:
    return json.dumps([[event.event_id, event.ingestion_time, event.timestamp, event.message] for event in events]).encode()


def _decode(content: bytes) -> list[LogEvent]:
    events = []
    for identifier, ingestion_time, timestamp, message in json.loads(content):
        event: LogEvent = object.__new__(LogEvent)
        event.__dict__.update(event_id=identifier, ingestion_time=ingestion_time, timestamp=timestamp, message=message)
        events.append(event)
    return events
