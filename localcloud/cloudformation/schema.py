"""The shape of a resource type's properties: what is supported, what is required, and CloudFormation's conversion of text into numbers and booleans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from localcloud.cloudformation.functions import Unknown, text_of

Json = Any
#: How a dynamic reference begins; what it stands for is known when the resource is made.
DYNAMIC_REFERENCE = "{{resolve:"


class PropertyError(Exception):
    """Indicates that a property does not fit the schema of its resource type.

    Attributes:
        path: The property, as a JSON pointer without the leading "#".
        unsupported: The property is one that localcloud does not support, rather than one with a wrong value.
    """

    def __init__(self, path: str, problem: str, *, unsupported: bool = False) -> None:
        super().__init__(problem)
        self.path = path
        self.unsupported = unsupported


class Scalar(Enum):
    """A property with one value."""

    STRING = "String"
    INTEGER = "Integer"
    NUMBER = "Number"
    BOOLEAN = "Boolean"
    #: Any JSON, passed on as it is: policies, state machines, event patterns.
    JSON = "JSONObject"


STRING, INTEGER, NUMBER, BOOLEAN, JSON = Scalar.STRING, Scalar.INTEGER, Scalar.NUMBER, Scalar.BOOLEAN, Scalar.JSON


@dataclass(frozen=True)
class OneOf:
    """A string out of a few."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class ListOf:
    """A list."""

    item: Type


@dataclass(frozen=True)
class MapOf:
    """An object with free keys."""

    value: Type


@dataclass(frozen=True)
class Object:
    """An object with known keys; a key that is not listed is an error that names it."""

    fields: Mapping[str, Type]
    required: tuple[str, ...] = field(default=())


Type = Scalar | OneOf | ListOf | MapOf | Object

TAG_LIST = ListOf(Object({"Key": STRING, "Value": STRING}, required=("Key", "Value")))
STRINGS = ListOf(STRING)


def one_of(*values: str) -> OneOf:
    """Return the type of a string that is one of *values*."""
    return OneOf(values)


def convert(value: Json, kind: Type, path: str = "") -> Json:
    """Return *value* in the form of its type (``"30"`` → 30 where a number is wanted); parts that are `Unknown` and dynamic references stay.

    Raises:
        PropertyError: The value does not fit.
    """
    if isinstance(value, Unknown) or (isinstance(value, str) and DYNAMIC_REFERENCE in value):
        return value
    match kind:
        case Scalar():
            return _scalar(value, kind, path)
        case OneOf(values):
            text = _scalar(value, STRING, path)
            if text not in values:
                raise PropertyError(path, f"{text} is not a valid enum value")
            return text
        case ListOf(item):
            if not isinstance(value, list):
                raise _mismatch(path, "JSONArray", value)
            return [convert(element, item, f"{path}/{index}") for index, element in enumerate(value)]
        case MapOf(item):
            if not isinstance(value, dict):
                raise _mismatch(path, "JSONObject", value)
            return {key: convert(element, item, f"{path}/{key}") for key, element in value.items()}
        case Object(fields, required):
            if not isinstance(value, dict):
                raise _mismatch(path, "JSONObject", value)
            for key in value:
                if key not in fields:
                    raise PropertyError(f"{path}/{key}", "is not supported", unsupported=True)
            for key in required:
                if key not in value:
                    raise PropertyError(path, f"required key [{key}] not found")
            return {key: convert(element, fields[key], f"{path}/{key}") for key, element in value.items()}


def _scalar(value: Json, kind: Scalar, path: str) -> Json:
    if kind is JSON:
        return value
    if isinstance(value, (dict, list)) or value is None:
        raise _mismatch(path, kind.value, value)
    if kind is STRING:
        return text_of(value)
    if kind is BOOLEAN:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise _mismatch(path, kind.value, value)
    if isinstance(value, bool):
        raise _mismatch(path, kind.value, value)
    text = str(value)
    try:
        if kind is INTEGER:
            return value if isinstance(value, int) else int(text.removesuffix(".0"))
        return value if isinstance(value, (int, float)) else int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError as error:
        raise _mismatch(path, kind.value, value) from error


def _mismatch(path: str, expected: str, value: Json) -> PropertyError:
    found = {dict: "JSONObject", list: "JSONArray", bool: "Boolean", int: "Integer", float: "Number", str: "String"}.get(
        type(value), "Null"
    )
    return PropertyError(path, f"expected type: {expected}, found: {found}")
