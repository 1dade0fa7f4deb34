"""Constraints of AWS's API models that botocore leaves to the service: enums, patterns, longest lengths, largest values."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from botocore.model import Shape


def constraint_errors(value: Any, shape: Shape, path: str = "") -> list[str]:
    """Return AWS's sentences for every enum, pattern, length and range that *value* breaks; empty when it breaks none."""
    if value is None:
        return []
    if shape.type_name == "structure":
        members = shape.members
        return [
            error
            for name, item in value.items()
            if name in members
            for error in constraint_errors(item, members[name], f"{path}.{_lower_first(name)}" if path else _lower_first(name))
        ]
    if shape.type_name == "list":
        errors = _length_error(len(value), shape, value, path)
        for index, item in enumerate(value, 1):
            errors += constraint_errors(item, shape.member, f"{path}.{index}.member")
        return errors
    if shape.type_name == "map":
        errors = _length_error(len(value), shape, value, path)
        for key, item in value.items():
            errors += constraint_errors(key, shape.key, path)
            errors += constraint_errors(item, shape.value, f"{path}.{key}.member")
        return errors
    if shape.type_name == "string":
        return _string_errors(value, shape, path)
    if shape.type_name in ("integer", "long", "float", "double"):
        return _range_error(value, shape, path)
    return []


def _string_errors(value: str, shape: Shape, path: str) -> list[str]:
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed:
        return [_sentence(value, path, f"Member must satisfy enum value set: [{', '.join(allowed)}]")]
    errors = _length_error(len(value), shape, value, path)
    pattern = shape.metadata.get("pattern")
    compiled = _compile(pattern) if pattern else None
    if compiled is not None and not compiled.fullmatch(value):
        errors.append(_sentence(value, path, f"Member must satisfy regular expression pattern: {pattern}"))
    return errors


def _length_error(length: int, shape: Shape, value: Any, path: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and length < low:
        return [_sentence(value, path, f"Member must have length greater than or equal to {low}")]
    if high is not None and length > high:
        return [_sentence(value, path, f"Member must have length less than or equal to {high}")]
    return []


def _range_error(value: float, shape: Shape, path: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and value < low:
        return [_sentence(value, path, f"Member must have value greater than or equal to {low}")]
    if high is not None and value > high:
        return [_sentence(value, path, f"Member must have value less than or equal to {high}")]
    return []


def _sentence(value: Any, path: str, constraint: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: {constraint}"


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


@lru_cache(maxsize=512)
def _compile(pattern: str) -> re.Pattern[str] | None:
    # The models' patterns are Java's; the few that Python cannot read (\p{...} classes) are not checked.
    try:
        return re.compile(pattern)
    except re.error:
        return None
