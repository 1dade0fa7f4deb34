"""What a target is sent: the event, a constant, a part of it, or a template filled from it.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from localcloud.errors import ServiceError
from localcloud.jsonpath import PathNotFound, PathSyntaxError, compile_path

_PLACEHOLDER = re.compile(r"<([a-zA-Z0-9_.\-]+)>")
_INVALID = "ValidationException"
_RESERVED = "aws.events."


class InvalidInput(ValueError):
    """Indicates that what a template gives for an event is not JSON."""


@dataclass(frozen=True)
class RuleContext:
    """What the predefined variables of a template stand for.

    Attributes:
        rule_name: Name of the rule.
        rule_arn: ARN of the rule.
        ingestion_time: When EventBridge received the event.
    """

    rule_name: str
    rule_arn: str
    ingestion_time: str


def check_target_input(target: dict[str, Any]) -> None:
    """Check a target's Input, InputPath and InputTransformer when it is put.

    Raises:
        ServiceError: AWS would refuse it.
    """
    identifier = target["Id"]
    if sum(member in target for member in ("Input", "InputPath", "InputTransformer")) > 1:
        raise ServiceError(_INVALID, f"Only one of Input, InputPath, or InputTransformer must be provided for target {identifier}.")
    if "Input" in target:
        try:
            json.loads(target["Input"])
        except ValueError as error:
            raise ServiceError(_INVALID, f"JSON syntax error in input for target {identifier} : {error}") from error
    if "InputPath" in target:
        _check_path(target["InputPath"], f"Invalid InputPath for target {identifier}")
    transformer = target.get("InputTransformer")
    if transformer is not None:
        variables = transformer.get("InputPathsMap", {})
        for name, path in variables.items():
            if name.lower().startswith("aws"):
                raise ServiceError(_INVALID, f"Invalid InputPathsMap for target {identifier} : a name may not start with 'AWS': {name}")
            _check_path(path, f"Invalid InputPathsMap for target {identifier}")
        template = transformer["InputTemplate"]
        unknown = [name for name in _PLACEHOLDER.findall(template) if name not in variables and not name.startswith(_RESERVED)]
        if unknown:
            raise ServiceError(
                _INVALID, f"Invalid InputTemplate for target {identifier} : Placeholder {unknown[0]} is not defined in InputPathsMap."
            )
        try:
            json.loads(_fill(template, dict.fromkeys(_PLACEHOLDER.findall(template), "")))
        except ValueError as error:
            raise ServiceError(_INVALID, f"Invalid InputTemplate for target {identifier} : {error}") from error


def target_input(target: dict[str, Any], event: dict[str, Any], context: RuleContext) -> str:
    """Return what a target is sent for an event, as JSON.

    Raises:
        InvalidInput: The filled template is not JSON.
    """
    if "Input" in target:
        return str(target["Input"])
    if target.get("InputPath"):
        try:
            return json.dumps(compile_path(target["InputPath"]).evaluate(event))
        except PathNotFound:
            return "null"
    if "InputTransformer" in target:
        return _transform(target["InputTransformer"], event, context)
    return json.dumps(event)


def _transform(transformer: dict[str, Any], event: dict[str, Any], context: RuleContext) -> str:
    values: dict[str, Any] = {
        f"{_RESERVED}rule-arn": context.rule_arn,
        f"{_RESERVED}rule-name": context.rule_name,
        f"{_RESERVED}event.ingestion-time": context.ingestion_time,
        f"{_RESERVED}event": {name: value for name, value in event.items() if name != "detail"},
        f"{_RESERVED}event.json": event,
    }
    for name, path in transformer.get("InputPathsMap", {}).items():
        try:
            values[name] = compile_path(path).evaluate(event)
        except PathNotFound:
            continue
    filled = _fill(transformer["InputTemplate"], values)
    try:
        json.loads(filled)
    except ValueError as error:
        raise InvalidInput(f"The input template gives no JSON for this event: {error}") from error
    return filled


def _fill(template: str, values: dict[str, Any]) -> str:
    """Put values in place of ``<name>``: as JSON where JSON stands, as text inside a quoted text; what the event has not is null or nothing."""
    parts: list[str] = []
    quoted = False
    index = 0
    while index < len(template):
        character = template[index]
        if character == "\\" and quoted:
            parts.append(template[index : index + 2])
            index += 2
            continue
        found = _PLACEHOLDER.match(template, index)
        if found is not None:
            value = values.get(found.group(1))
            parts.append(_inside_text(value) if quoted else json.dumps(value))
            index = found.end()
            continue
        if character == '"':
            quoted = not quoted
        # The console lets a template in quotes run over several lines.
        parts.append("\\n" if quoted and character == "\n" else character)
        index += 1
    return "".join(parts)


def _inside_text(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value if isinstance(value, str) else json.dumps(value))[1:-1]


def _check_path(path: str, prefix: str) -> None:
    try:
        compile_path(path)
    except PathSyntaxError as error:
        raise ServiceError(_INVALID, f"{prefix} : {error}") from error
