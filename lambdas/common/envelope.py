"""The envelope that the functions of the workflow hand on: `{"statusCode": 200, "body": {...}}`."""

import math
import os
from collections.abc import Mapping
from typing import Any

from lambdas.common.errors import InvalidInputError

THRESHOLD_FIELD = "threshold"


def envelope(body: dict[str, Any]) -> dict[str, Any]:
    """Wraps `body` for the next function."""
    return {"statusCode": 200, "body": body}


def unwrap(event: object) -> dict[str, Any]:
    """Returns a copy of the body in a previous function's envelope.

    Raises:
        InvalidInputError: `event` is no such envelope.
    """
    body = event.get("body") if isinstance(event, Mapping) else None
    if not isinstance(body, Mapping):
        raise InvalidInputError(
            'Expected the previous function\'s answer, {"statusCode": 200, "body": {...}}. '
            "Start the state machine instead of this function, or pass that answer on unchanged."
        )
    return dict(body)


def parse_threshold(value: object) -> float:
    """Returns a confidence threshold, a number from 0.0 to 1.0.

    Raises:
        InvalidInputError: not a number (a text such as "0.9" or "high", a boolean, NaN), or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError(f"'{THRESHOLD_FIELD}' must be a number from 0.0 to 1.0, for example 0.93; got {value!r:.80}.")
    return float(value)


def parse_probabilities(value: object) -> list[float]:
    """Returns class probabilities: a list of at least one number, each from 0.0 to 1.0.

    Raises:
        ValueError: anything else; the message says what was found.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"'inferences' must be a list of class probabilities; got {value!r:.80}")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item) or not 0 <= item <= 1:
            raise ValueError(f"'inferences' must hold numbers from 0 to 1; got {item!r:.80}")
    return [float(item) for item in value]


def int_from_environment(name: str) -> int:
    """Returns the integer that the template sets in environment variable `name`.

    Raises:
        RuntimeError: the variable is missing or no integer, which is a mistake in the template.
    """
    try:
        return int(os.environ[name])
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"The function's environment variable {name} must be set to an integer.") from error
