"""The events of one execution, as GetExecutionHistory shows them.

Values are kept as they are while the execution runs and become text once each: the same value is the output of one state and the input of the next.
"""

from __future__ import annotations

import json
import time
from typing import Any

from localcloud.stepfunctions.errors import ErrorName, StateError

#: Bytes that a state's input or result may have (https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html).
MAX_DATA_BYTES = 262_144
#: Members of event details that are values of the state machine.
_VALUES = ("input", "output", "parameters")


def to_json(value: Any) -> str:
    """Return a value as Step Functions writes JSON: compact."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class History:
    """What happened in one execution so far."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        # The value is kept beside its text: as long as it lives, its id() is its own.
        self._texts: dict[int, tuple[Any, str]] = {}

    def text(self, value: Any) -> str:
        """Return a value as JSON."""
        if not isinstance(value, (dict, list)):
            return to_json(value)
        known = self._texts.get(id(value))
        if known is None:
            known = self._texts[id(value)] = (value, to_json(value))
        return known[1]

    def check_size(self, value: Any, what: str) -> str:
        """Return a value as JSON when it is not too large.

        Raises:
            StateError: ``States.DataLimitExceeded``.
        """
        text = self.text(value)
        # A character has at most four bytes: only a text that may be too long is encoded to be counted.
        if len(text) * 4 > MAX_DATA_BYTES and len(text.encode()) > MAX_DATA_BYTES:
            raise StateError(
                ErrorName.DATA_LIMIT_EXCEEDED,
                f"The state/task '{what}' returned a result with a size exceeding the maximum number of bytes service limit.",
            )
        return text

    def rendered(self) -> list[dict[str, Any]]:
        """Return the events as they are stored: inputs, outputs and parameters as JSON texts."""
        return [{name: self._render(value) if isinstance(value, dict) else value for name, value in event.items()} for event in self.events]

    def _render(self, details: dict[str, Any]) -> dict[str, Any]:
        return {name: self.text(value) if name in _VALUES else value for name, value in details.items()}

    def add(self, kind: str, previous: int, details: tuple[str, dict[str, Any]] | None = None) -> int:
        """Add an event and return its id.

        Args:
            kind: HistoryEventType.
            previous: Id of the event before it on its path through the state machine.
            details: Name of the details' member and the details.
        """
        identifier = len(self.events) + 1
        event: dict[str, Any] = {"timestamp": time.time(), "type": kind, "id": identifier, "previousEventId": previous}
        if details is not None:
            event[details[0]] = details[1]
        self.events.append(event)
        return identifier
