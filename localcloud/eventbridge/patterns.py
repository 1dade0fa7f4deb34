"""Event patterns: what a rule matches (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html).

Meaning and messages are those of Event Ruler (https://github.com/aws/event-ruler), which EventBridge runs: fields below one array element are matched
together; ``exists: false`` looks at the whole event.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_Test = Callable[[Any], bool]
_NUMERIC_LIMIT = 5e9


class InvalidPattern(ValueError):
    """Indicates that a text is no event pattern; its message is Ruler's."""


@dataclass(frozen=True)
class _Leaf:
    """The array of a field: any of its tests on any of the field's values; or that the field is nowhere."""

    path: tuple[str, ...]
    tests: tuple[_Test, ...]
    absence: bool

    def matches(self, value: Any, event: Any) -> bool:
        if self.absence and not any(True for _ in _values_at(event, self.path)):
            return True
        return any(test(item) for item in _scalars(value) for test in self.tests)


@dataclass(frozen=True)
class _Object:
    fields: tuple[tuple[str, _Leaf | _Object], ...]
    alternatives: tuple[tuple[_Object, ...], ...]

    def matches(self, value: Any, event: Any) -> bool:
        candidates = list(_objects(value)) or [{}]
        return any(self._matches_one(candidate, event) for candidate in candidates)

    def _matches_one(self, value: dict[str, Any], event: Any) -> bool:
        return all(node.matches(value.get(name, _MISSING), event) for name, node in self.fields) and all(
            any(option._matches_one(value, event) for option in options) for options in self.alternatives
        )


_MISSING = object()


class EventPattern:
    """A compiled event pattern.

    Raises:
        InvalidPattern: The text is not one.
    """

    def __init__(self, text: str) -> None:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidPattern(f"Unexpected character or end of input: {error}") from error
        if not isinstance(document, dict):
            raise InvalidPattern("Filter is not an object")
        self._root = _compile_object(document, ())

    def matches(self, event: dict[str, Any]) -> bool:
        """Tell whether an event (the whole envelope) matches."""
        return self._root.matches(event, event)


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> EventPattern:
    """Return the compiled pattern of a text.

    Raises:
        InvalidPattern: It is not one.
    """
    return EventPattern(text)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _scalars(item)
    elif value is not _MISSING and not isinstance(value, dict):
        yield value


def _values_at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield from _scalars(value)
        return
    for candidate in _objects(value):
        if path[0] in candidate:
            yield from _values_at(candidate[path[0]], path[1:])


def _compile_object(document: dict[str, Any], path: tuple[str, ...]) -> _Object:
    if not document:
        raise InvalidPattern("Empty objects are not allowed")
    fields: list[tuple[str, _Leaf | _Object]] = []
    alternatives: list[tuple[_Object, ...]] = []
    for name, value in document.items():
        if name == "$or":
            alternatives.append(_compile_or(value, path))
        elif isinstance(value, dict):
            fields.append((name, _compile_object(value, (*path, name))))
        elif isinstance(value, list):
            fields.append((name, _compile_leaf(value, (*path, name))))
        else:
            raise InvalidPattern(f'"{name}" must be an object or an array')
    return _Object(tuple(fields), tuple(alternatives))


def _compile_or(value: Any, path: tuple[str, ...]) -> tuple[_Object, ...]:
    if not isinstance(value, list):
        raise InvalidPattern("It must be an Array followed with $or.")
    if any(not isinstance(option, dict) for option in value):
        raise InvalidPattern("Only JSON object is allowed in array of $or relationship.")
    if len(value) < 2:
        raise InvalidPattern("There must have at least 2 Objects in $or relationship.")
    return tuple(_compile_object(option, path) for option in value)


def _compile_leaf(values: list[Any], path: tuple[str, ...]) -> _Leaf:
    if not values:
        raise InvalidPattern("Empty arrays are not allowed")
    tests: list[_Test] = []
    absence = False
    for value in values:
        if isinstance(value, list):
            raise InvalidPattern("Match value must be String, number, true, false, or null")
        if not isinstance(value, dict):
            tests.append(_equals(value))
            continue
        if len(value) != 1:
            raise InvalidPattern("Only one key allowed in match expression" if value else "Match expression name not found")
        kind, operand = next(iter(value.items()))
        if kind == "exists":
            if not isinstance(operand, bool):
                raise InvalidPattern("exists match pattern must be either true or false.")
            absence = absence or not operand
            if operand:
                tests.append(lambda _: True)
        else:
            tests.append(_compile_expression(kind, operand))
    return _Leaf(path, tuple(tests), absence)


def _compile_expression(kind: str, operand: Any) -> _Test:
    if kind == "anything-but":
        return _anything_but(operand)
    if kind in ("prefix", "suffix"):
        return _affix(kind, operand)
    if kind == "numeric":
        return _numeric(operand)
    if kind == "cidr":
        return _cidr(operand)
    if kind in ("equals-ignore-case", "wildcard", "exactly"):
        if not isinstance(operand, str):
            name = "exact" if kind == "exactly" else kind
            raise InvalidPattern(f"{name} match pattern must be a string")
        return {"equals-ignore-case": _equals_ignore_case, "wildcard": _wildcard, "exactly": _equals}[kind](operand)
    raise InvalidPattern(f"Unrecognized match type {kind}")


def _equals(expected: Any) -> _Test:
    if _is_number(expected):
        return lambda value: _is_number(value) and value == expected
    return lambda value: type(value) is type(expected) and value == expected


def _equals_ignore_case(expected: str) -> _Test:
    folded = expected.lower()
    return lambda value: isinstance(value, str) and value.lower() == folded


def _affix(kind: str, operand: Any) -> _Test:
    folded = isinstance(operand, dict) and list(operand) == ["equals-ignore-case"]
    text = operand["equals-ignore-case"] if folded else operand
    if not isinstance(text, str):
        raise InvalidPattern(f"{kind} match pattern must be a string")
    if folded:
        text = text.lower()
    starts = kind == "prefix"

    def test(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        value = value.lower() if folded else value
        return bool(value.startswith(text) if starts else value.endswith(text))

    return test


def _wildcard(text: str) -> _Test:
    parts: list[str] = []
    index = 0
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 1
            if text[index : index + 1] not in ("*", "\\") or not text[index : index + 1]:
                raise InvalidPattern(f"Invalid escape character at pos {index - 1}")
            parts.append(re.escape(text[index]))
        elif character == "*":
            if parts and parts[-1] == ".*" and text[index - 1] == "*":
                raise InvalidPattern(f"Consecutive wildcard characters at pos {index - 1}")
            parts.append(".*")
        else:
            parts.append(re.escape(character))
        index += 1
    expression = re.compile("".join(parts), re.DOTALL)
    return lambda value: isinstance(value, str) and expression.fullmatch(value) is not None


def _cidr(operand: Any) -> _Test:
    if not isinstance(operand, str):
        raise InvalidPattern("prefix match pattern must be a string")
    if operand.count("/") != 1:
        raise InvalidPattern("Malformed CIDR, one '/' required")
    try:
        network = ipaddress.ip_network(operand, strict=False)
    except ValueError as error:
        raise InvalidPattern(f"Malformed CIDR: {error}") from error

    def test(value: Any) -> bool:
        try:
            return isinstance(value, str) and ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return test


def _numeric(operand: Any) -> _Test:
    if not isinstance(operand, list):
        raise InvalidPattern("Value of numeric must be an array.")
    if not operand or not isinstance(operand[0], str):
        raise InvalidPattern(f"Invalid member in numeric match: {operand[0] if operand else ']'}")
    operator = operand[0]
    if operator not in ("=", "<", "<=", ">", ">="):
        raise InvalidPattern(f"Unrecognized numeric range operator: {operator}")
    first = _numeric_operand(operand, 1, "equals" if operator == "=" else operator)
    tests = [_numeric_test(operator, first)]
    if len(operand) > 2:
        if operator not in (">", ">="):
            raise InvalidPattern("Too many elements in numeric expression")
        if not isinstance(operand[2], str):
            raise InvalidPattern(f"Bad value in numeric range: {operand[2]}")
        if operand[2] not in ("<", "<="):
            raise InvalidPattern(f"Bad numeric range operator: {operand[2]}")
        second = _numeric_operand(operand, 3, operand[2])
        if len(operand) > 4:
            raise InvalidPattern("Too many terms in numeric range expression")
        if first >= second:
            raise InvalidPattern("Bottom must be less than top")
        tests.append(_numeric_test(operand[2], second))
    return lambda value: _is_number(value) and all(test(value) for test in tests)


def _numeric_operand(operand: list[Any], index: int, name: str) -> float:
    value: Any = operand[index] if index < len(operand) else None
    if not _is_number(value):
        raise InvalidPattern(f"Value of {name} must be numeric")
    if abs(value) > _NUMERIC_LIMIT:
        raise InvalidPattern(f"Value must be between {-_NUMERIC_LIMIT} and {_NUMERIC_LIMIT}, inclusive")
    return float(value)


def _numeric_test(operator: str, bound: float) -> _Test:
    tests: dict[str, _Test] = {
        "=": lambda value: value == bound,
        "<": lambda value: value < bound,
        "<=": lambda value: value <= bound,
        ">": lambda value: value > bound,
        ">=": lambda value: value >= bound,
    }
    return tests[operator]


def _anything_but(operand: Any) -> _Test:
    if isinstance(operand, dict):
        if len(operand) != 1:
            raise InvalidPattern("Only one key allowed in match expression" if operand else "Anything-But expression name not found")
        kind, inner = next(iter(operand.items()))
        if kind not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise InvalidPattern(f"Unsupported anything-but pattern: {kind}")
        texts = inner if isinstance(inner, list) else [inner]
        if not texts or any(not isinstance(text, str) for text in texts):
            raise InvalidPattern(f"{kind} match pattern must be a string")
        if kind in ("prefix", "suffix") and "" in texts:
            raise InvalidPattern("Null prefix/suffix not allowed")
        tests = [_compile_expression(kind, text) for text in texts]
    else:
        values = operand if isinstance(operand, list) else [operand]
        if any(not isinstance(value, str) and not _is_number(value) for value in values):
            raise InvalidPattern("Value of anything-but must be an array or single string/number value.")
        if not values or len({_is_number(value) for value in values}) != 1:
            raise InvalidPattern("Inside anything but list, either all values are number or string, mixed type is not supported")
        tests = [_equals(value) for value in values]
    return lambda value: not any(test(value) for test in tests)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
