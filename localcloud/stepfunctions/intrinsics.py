"""Intrinsic functions of JSONPath states.

https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

from localcloud.jsonpath import same

_MAX_BASE64 = 10_000
_MAX_RANGE = 1_000
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


class IntrinsicError(ValueError):
    """Indicates that a function was given what it cannot work on."""


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise IntrinsicError(reason)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def to_text(value: Any) -> str:
    """Return a JSON value as text: texts as they are, everything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def format_text(template: Any, *values: Any) -> str:
    """States.Format. *template* is the literal as written between its quotes: ``{}`` takes the next value, ``\\{`` is a brace."""
    _require(isinstance(template, str), "the first argument must be a text")
    parts: list[str] = []
    remaining = list(values)
    index = 0
    while index < len(template):
        if template[index] == "\\" and index + 1 < len(template):
            parts.append(template[index + 1])
            index += 2
        elif template.startswith("{}", index):
            _require(bool(remaining), "the number of {} does not match the number of arguments")
            parts.append(to_text(remaining.pop(0)))
            index += 2
        else:
            _require(template[index] not in "{}", "matching '}' not found for '{'")
            parts.append(template[index])
            index += 1
    _require(not remaining, "the number of {} does not match the number of arguments")
    return "".join(parts)


def _string_to_json(text: Any) -> Any:
    _require(isinstance(text, str), "the argument must be a text")
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise IntrinsicError(f"the text is not JSON: {error}") from error


def _array_partition(array: Any, size: Any) -> list[Any]:
    _require(isinstance(array, list), "the first argument must be an array")
    _require(_is_number(size) and size > 0, "the chunk size must be a positive number")
    width = max(1, round(size))
    return [array[begin : begin + width] for begin in range(0, len(array), width)]


def _array_contains(array: Any, wanted: Any) -> bool:
    _require(isinstance(array, list), "the first argument must be an array")
    return any(same(item, wanted) for item in array)


def _array_range(first: Any, last: Any, step: Any) -> list[int]:
    _require(all(_is_number(value) for value in (first, last, step)), "the arguments must be numbers")
    first, last, step = round(first), round(last), round(step)
    _require(step != 0, "the increment must not be zero")
    values = list(range(first, last + (1 if step > 0 else -1), step))
    _require(len(values) <= _MAX_RANGE, f"the array would have more than {_MAX_RANGE} items")
    return values


def _array_get_item(array: Any, index: Any) -> Any:
    _require(isinstance(array, list), "the first argument must be an array")
    _require(_is_integer(index) and 0 <= index < len(array), "the index is outside the array")
    return array[index]


def _array_length(array: Any) -> int:
    _require(isinstance(array, list), "the argument must be an array")
    return len(array)


def _array_unique(array: Any) -> list[Any]:
    _require(isinstance(array, list), "the argument must be an array")
    unique: list[Any] = []
    for item in array:
        if not any(same(item, seen) for seen in unique):
            unique.append(item)
    return unique


def _base64_encode(text: Any) -> str:
    _require(isinstance(text, str) and len(text) <= _MAX_BASE64, f"the argument must be a text of at most {_MAX_BASE64} characters")
    return base64.b64encode(text.encode()).decode()


def _base64_decode(text: Any) -> str:
    _require(isinstance(text, str) and len(text) <= _MAX_BASE64, f"the argument must be a text of at most {_MAX_BASE64} characters")
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise IntrinsicError(f"the text is not base64 of UTF-8: {error}") from error


def _hash(value: Any, algorithm: Any) -> str:
    _require(algorithm in _HASHES, f"the algorithm must be one of {', '.join(_HASHES)}")
    text = to_text(value)
    _require(len(text) <= _MAX_BASE64, f"the value must have at most {_MAX_BASE64} characters")
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _json_merge(first: Any, second: Any, deep: Any) -> dict[str, Any]:
    _require(isinstance(first, dict) and isinstance(second, dict), "the first two arguments must be objects")
    _require(deep is False, "only a shallow merge is supported by Step Functions: the third argument must be false")
    return {**first, **second}


def _math_random(first: Any, last: Any, seed: Any = None) -> int:
    _require(all(_is_number(value) for value in (first, last)), "the first two arguments must be numbers")
    low, high = round(first), round(last)
    _require(low < high, "the end must be larger than the start")
    source: random.Random = random.Random(seed) if seed is not None else random.SystemRandom()
    number: int = source.randrange(low, high)
    return number


def _math_add(first: Any, second: Any) -> int:
    _require(_is_number(first) and _is_number(second), "the arguments must be numbers")
    total: int = round(first) + round(second)
    return total


def _string_split(text: Any, delimiters: Any) -> list[str]:
    _require(isinstance(text, str) and isinstance(delimiters, str), "the arguments must be texts")
    parts = [""]
    for character in text:
        if character in delimiters:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]


#: Name → (function, fewest arguments, most arguments or None).
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int | None]] = {
    "States.Format": (format_text, 1, None),
    "States.StringToJson": (_string_to_json, 1, 1),
    "States.JsonToString": (lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False), 1, 1),
    "States.Array": (lambda *values: list(values), 0, None),
    "States.ArrayPartition": (_array_partition, 2, 2),
    "States.ArrayContains": (_array_contains, 2, 2),
    "States.ArrayRange": (_array_range, 3, 3),
    "States.ArrayGetItem": (_array_get_item, 2, 2),
    "States.ArrayLength": (_array_length, 1, 1),
    "States.ArrayUnique": (_array_unique, 1, 1),
    "States.Base64Encode": (_base64_encode, 1, 1),
    "States.Base64Decode": (_base64_decode, 1, 1),
    "States.Hash": (_hash, 2, 2),
    "States.JsonMerge": (_json_merge, 3, 3),
    "States.MathRandom": (_math_random, 2, 3),
    "States.MathAdd": (_math_add, 2, 2),
    "States.StringSplit": (_string_split, 2, 2),
    "States.UUID": (lambda: str(uuid.uuid4()), 0, 0),
}
