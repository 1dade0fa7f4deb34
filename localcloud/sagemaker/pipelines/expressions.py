"""The functions of a pipeline definition: Get, Std:Join and Std:JsonGet, and the paths in them.

A value in a step's arguments is a literal or an expression, an object with exactly one member: ``{"Get": "Parameters.Epochs"}``,
``{"Std:Join": {"On": "/", "Values": [...]}}``, ``{"Std:JsonGet": {"PropertyFile": {"Get": "Steps.X.PropertyFiles.Y"}, "Path": "a.b[0]"}}`` or the same with
``"S3Uri"`` in place of ``"PropertyFile"``. Expressions nest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

#: A step through a document: a member's name or a list's index.
PathItem = str | int
Path = tuple[PathItem, ...]

#: The members by which SageMaker's lists of named things are indexed, e.g. ``Outputs['train']`` is the output whose OutputName is "train".
NAME_MEMBERS = ("OutputName", "InputName", "ChannelName", "MetricName", "VariantName", "Name")

EXECUTION_VARIABLES = (
    "CurrentDateTime",
    "PipelineArn",
    "PipelineExecutionArn",
    "PipelineExecutionId",
    "PipelineName",
    "ProcessingJobName",
    "StartDateTime",
    "TrainingJobName",
)

_BARE = r"[^.\[\]'\"\s]+"
_PATH_ITEM = re.compile(
    rf"""\.?(?P<bare>{_BARE})|\[(?P<index>-?\d+)\]|\['(?P<single>(?:[^'\\]|\\.)*)'\]|\["(?P<double>(?:[^"\\]|\\.)*)"\]"""
)


class ExpressionError(Exception):
    """Indicates that an expression is malformed, or that what it refers to is not there."""


@dataclass(frozen=True)
class ParameterReference:
    """``Parameters.<name>``."""

    name: str


@dataclass(frozen=True)
class ExecutionReference:
    """``Execution.<variable>``."""

    variable: str


@dataclass(frozen=True)
class StepReference:
    """``Steps.<step>.<path>``."""

    step: str
    path: Path


@dataclass(frozen=True)
class PropertyFileReference:
    """``Steps.<step>.PropertyFiles.<name>``, which only Std:JsonGet may use."""

    step: str
    name: str


Reference = ParameterReference | ExecutionReference | StepReference | PropertyFileReference


class Scope(Protocol):
    """What the expressions of one step can see."""

    def parameter(self, name: str) -> str | int | float | bool:
        """Return a parameter's value."""

    def execution_variable(self, name: str) -> str:
        """Return one of EXECUTION_VARIABLES."""

    def step_properties(self, step: str) -> Mapping[str, Any]:
        """Return the properties of a step that has succeeded (the answer of the Describe operation of what it made)."""

    def property_file(self, step: str, name: str) -> Any:
        """Return a step's property file, parsed."""

    def json_object(self, uri: str) -> Any:
        """Return an S3 object, parsed as JSON."""


def is_expression(value: Any) -> bool:
    """Return whether *value* is one of the functions and not a literal."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("Get", "Std:Join", "Std:JsonGet")


def parse_path(text: str) -> Path:
    """Parse ``a.b[0]['c d']`` (a leading ``$`` is allowed) into ``("a", "b", 0, "c d")``.

    Raises:
        ExpressionError: It is not such a path; filters and wildcards of JsonPath are not supported by localcloud.
    """
    rest = text.removeprefix("$")
    items: list[PathItem] = []
    position = 0
    while position < len(rest):
        match = _PATH_ITEM.match(rest, position)
        # A name follows a dot; only the very first may stand alone. A dot before a bracket, or a bare "*", is not a path that names one value.
        if match is None or (match["bare"] and items and rest[position] != ".") or match["bare"] == "*":
            raise ExpressionError(f"Invalid path '{text}' (at '{rest[position:]}'): expected names and indexes like a.b[0]['c']")
        if match["index"] is not None:
            items.append(int(match["index"]))
        else:
            quoted = match["single"] if match["single"] is not None else match["double"]
            items.append(match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        position = match.end()
    if not items:
        raise ExpressionError(f"Invalid path '{text}': it names nothing")
    return tuple(items)


def format_path(path: Path) -> str:
    """Return a path as SageMaker writes it: ``a.b[0]['c d']``."""
    text = ""
    for item in path:
        if isinstance(item, int):
            text += f"[{item}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", item):
            text += f".{item}" if text else item
        else:
            escaped = item.replace("\\", "\\\\").replace("'", "\\'")
            text += f"['{escaped}']"
    return text


def parse_reference(text: Any) -> Reference:
    """Parse the string of a Get.

    Raises:
        ExpressionError: It names nothing that a Get can name.
    """
    if not isinstance(text, str):
        raise ExpressionError("Expecting a String for 'Get'.")
    kind, _, rest = text.partition(".")
    if kind == "Parameters" and rest:
        return ParameterReference(rest)
    if kind == "Execution" and rest in EXECUTION_VARIABLES:
        return ExecutionReference(rest)
    if kind == "Steps" and rest:
        match = re.match(r"[A-Za-z0-9\-_]+", rest)
        step = match[0] if match else ""
        tail = rest[len(step) :]
        if step and tail.startswith(".PropertyFiles."):
            return PropertyFileReference(step, tail.removeprefix(".PropertyFiles."))
        if step and tail[:1] in (".", "["):
            return StepReference(step, parse_path(tail.removeprefix(".")))
    raise ExpressionError(f"Unknown property reference [{text}].")


def references(value: Any) -> Iterator[Reference]:
    """Yield every reference in a JSON value, nested ones too.

    Raises:
        ExpressionError: An expression is malformed.
    """
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        if not is_expression(value):
            for item in value.values():
                yield from references(item)
        elif "Get" in value:
            yield parse_reference(value["Get"])
        elif "Std:Join" in value:
            yield from references(_join_arguments(value)[1])
        else:
            source, _ = _json_get_arguments(value)
            yield from references(source)


def resolve(value: Any, scope: Scope) -> Any:
    """Return a JSON value with every expression replaced by what it stands for; literals keep their types.

    Raises:
        ExpressionError: Something that is referred to is not there.
    """
    if isinstance(value, list):
        return [resolve(item, scope) for item in value]
    if not isinstance(value, dict):
        return value
    if not is_expression(value):
        return {key: resolve(item, scope) for key, item in value.items()}
    if "Get" in value:
        return _get(parse_reference(value["Get"]), scope)
    if "Std:Join" in value:
        separator, values = _join_arguments(value)
        return separator.join(to_text(resolve(item, scope)) for item in values)
    source, path = _json_get_arguments(value)
    if isinstance(source, dict) and "Get" in source:
        reference = parse_reference(source["Get"])
        if isinstance(reference, PropertyFileReference):
            return lookup(
                scope.property_file(reference.step, reference.name), path, f"property file {reference.name} of step {reference.step}"
            )
    uri = resolve(source, scope)
    return lookup(scope.json_object(uri), path, str(uri))


def lookup(document: Any, path: Path, what: str) -> Any:
    """Return the value at *path* in a document.

    A list is indexed by position, or by name when its elements have one (`NAME_MEMBERS`).

    Args:
        document: JSON-like value.
        path: Where to look.
        what: What the document is, for the error.

    Raises:
        ExpressionError: There is nothing at that path.
    """
    value = document
    for depth, item in enumerate(path):
        found, value = _member(value, item)
        if not found:
            here = format_path(path[:depth])
            raise ExpressionError(f"Nothing at path '{format_path(path)}' in {what}: no '{item}'" + (f" in '{here}'" if here else ""))
    return value


def to_text(value: Any) -> str:
    """Return a scalar as Std:Join writes it: ``true``, ``3``, ``0.85``, ``1.0E-5`` (as Java's Double.toString does), text as it is.

    Raises:
        ExpressionError: It is no scalar.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, str | int):
        return str(value)
    raise ExpressionError(f"Std:Join joins texts, numbers and booleans, not {'null' if value is None else type(value).__name__}")


def format_time(moment: datetime) -> str:
    """Return a moment in UTC with milliseconds: ``2021-03-15T16:03:13.512Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _get(reference: Reference, scope: Scope) -> Any:
    if isinstance(reference, ParameterReference):
        return scope.parameter(reference.name)
    if isinstance(reference, ExecutionReference):
        return scope.execution_variable(reference.variable)
    if isinstance(reference, PropertyFileReference):
        raise ExpressionError(f"The property file {reference.name} of step {reference.step} can only be used in Std:JsonGet.")
    value = lookup(scope.step_properties(reference.step), reference.path, f"the properties of step {reference.step}")
    return format_time(value) if isinstance(value, datetime) else value


def _member(value: Any, item: PathItem) -> tuple[bool, Any]:
    if isinstance(value, Mapping):
        return (item in value, value.get(item)) if isinstance(item, str) else (False, None)
    if isinstance(value, list):
        if isinstance(item, int):
            return (True, value[item]) if -len(value) <= item < len(value) else (False, None)
        for element in value:
            if isinstance(element, Mapping) and any(element.get(name) == item for name in NAME_MEMBERS):
                return True, element
    return False, None


def _join_arguments(expression: Mapping[str, Any]) -> tuple[str, list[Any]]:
    arguments = expression["Std:Join"]
    if not isinstance(arguments, dict) or not isinstance(arguments.get("Values"), list) or not isinstance(arguments.get("On", ""), str):
        raise ExpressionError("Std:Join takes an object with a String 'On' and a list 'Values'.")
    unknown = sorted(set(arguments) - {"On", "Values"})
    if unknown:
        raise ExpressionError(f"Cannot parse object, unknown property '{unknown[0]}'.")
    return arguments.get("On", ""), arguments["Values"]


def _json_get_arguments(expression: Mapping[str, Any]) -> tuple[Any, Path]:
    """Return where the document is (an expression or an S3 URI) and the path in it."""
    arguments = expression["Std:JsonGet"]
    if (
        not isinstance(arguments, dict)
        or not isinstance(arguments.get("Path"), str)
        or ("PropertyFile" in arguments) == ("S3Uri" in arguments)
    ):
        raise ExpressionError("Std:JsonGet takes an object with a String 'Path' and one of 'PropertyFile' and 'S3Uri'.")
    unknown = sorted(set(arguments) - {"PropertyFile", "S3Uri", "Path"})
    if unknown:
        raise ExpressionError(f"Cannot parse object, unknown property '{unknown[0]}'.")
    path = parse_path(arguments["Path"])
    if "S3Uri" in arguments:
        return arguments["S3Uri"], path
    source = arguments["PropertyFile"]
    if not is_expression(source) or "Get" not in source or not isinstance(parse_reference(source["Get"]), PropertyFileReference):
        raise ExpressionError("Std:JsonGet's 'PropertyFile' must be a Get of Steps.<step>.PropertyFiles.<name>.")
    return source, path


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    # Both languages print the shortest digits that read back as the same double; they differ in when they turn to an exponent, and in how it looks.
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    dropped = len(digits) - len(text)
    power = int(exponent) + dropped + len(text) - 1
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{power}"
