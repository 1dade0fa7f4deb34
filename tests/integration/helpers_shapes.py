"""Compares what localcloud sends with the shapes that AWS documents, which are in tests/events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).parents[1] / "events"
#: What these hold is named by people, not by AWS.
_MAPS = {"HyperParameters", "Tags", "Environment", "dimensions", "requestPayload", "responsePayload"}


def documented(name: str) -> Any:
    """Return one of the shapes."""
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def differences(shape: Any, sent: Any, where: str = "") -> set[str]:
    """Return how a document differs from its documented shape: ``- path`` is missing, ``+ path`` is not documented, ``! path: …`` has another type."""
    return set(_compare(shape, sent, where))


def _compare(shape: Any, sent: Any, where: str) -> Iterator[str]:
    if shape is None or sent is None:
        if shape is not sent and shape is not None:
            yield f"! {where}: {_kind(shape)} is null"
    elif _kind(shape) != _kind(sent):
        yield f"! {where}: {_kind(shape)} is {_kind(sent)}"
    elif isinstance(shape, dict) and where.rpartition(".")[2] not in _MAPS:
        yield from (f"- {where}.{name}".replace(" .", " ") for name in shape.keys() - sent.keys())
        yield from (f"+ {where}.{name}".replace(" .", " ") for name in sent.keys() - shape.keys())
        for name in shape.keys() & sent.keys():
            yield from _compare(shape[name], sent[name], f"{where}.{name}".removeprefix("."))
    elif isinstance(shape, list) and shape:
        for item in sent:
            yield from _compare(shape[0], item, where)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a text"
