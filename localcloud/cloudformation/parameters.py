"""Template parameters: declared types and constraints, and the values that a request gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.functions import text_of
from localcloud.errors import ServiceError

Json = Any

_EC2_TYPES = frozenset(
    "AWS::EC2::" + name
    for name in (
        "AvailabilityZone::Name", "Image::Id", "Instance::Id", "KeyPair::KeyName", "SecurityGroup::GroupName", "SecurityGroup::Id",
        "Subnet::Id", "Volume::Id", "VPC::Id",
    )
)  # fmt: skip
_SCALAR_TYPES = frozenset(("String", "Number", "AWS::SSM::Parameter::Name", "AWS::Route53::HostedZone::Id")) | _EC2_TYPES
_LIST_TYPES = frozenset(("List<Number>", "List<String>", "CommaDelimitedList")) | {f"List<{name}>" for name in _EC2_TYPES}
_SSM_VALUE = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
_ATTRIBUTES = frozenset(
    (
        "Type", "Default", "AllowedPattern", "AllowedValues", "ConstraintDescription", "Description", "MaxLength", "MaxValue", "MinLength",
        "MinValue", "NoEcho",
    )
)  # fmt: skip
#: AWS's limit of a parameter's value, in bytes.
_MAX_VALUE_BYTES = 4096


@dataclass(frozen=True)
class ParameterSpec:
    """One declared parameter."""

    name: str
    type: str
    default: str | None
    no_echo: bool
    description: str | None
    allowed_values: tuple[str, ...] | None
    allowed_pattern: str | None
    minimum_length: int | None
    maximum_length: int | None
    minimum: Decimal | None
    maximum: Decimal | None
    constraint_description: str | None

    @property
    def ssm_type(self) -> str | None:
        """The type of the value that the named SSM parameter holds, when the parameter is an AWS::SSM::Parameter::Value."""
        match = _SSM_VALUE.fullmatch(self.type)
        return match.group(1) if match else None

    @property
    def is_list(self) -> bool:
        """Whether the value that Ref gives is a list."""
        return (self.ssm_type or self.type) in _LIST_TYPES


@dataclass(frozen=True)
class ParameterValue:
    """The value of one parameter in one stack.

    Attributes:
        raw: What the request or the default says.
        value: What Ref gives: text or a list of texts.
        resolved: The value of the SSM parameter that `raw` names, else None.
    """

    raw: str
    value: str | list[str]
    resolved: str | None = None

    def document(self) -> dict[str, Json]:
        """Return it as a JSON document."""
        return {"Raw": self.raw, "Value": self.value, "Resolved": self.resolved}

    @classmethod
    def of(cls, document: Mapping[str, Json]) -> ParameterValue:
        """Return the value that `document` made."""
        return cls(document["Raw"], document["Value"], document["Resolved"])


def declared(parameters: Mapping[str, Mapping[str, Json]]) -> dict[str, ParameterSpec]:
    """Read a template's Parameters section.

    Raises:
        ServiceError: A declaration is wrong, or its type is not known.
    """
    return {name: _declaration(name, body) for name, body in parameters.items()}


def _declaration(name: str, body: Mapping[str, Json]) -> ParameterSpec:
    if not isinstance(body, Mapping) or "Type" not in body:
        raise validation_error(f"Template format error: Every Parameters object must contain a Type member. ({name})")
    unknown = sorted(set(body) - _ATTRIBUTES)
    if unknown:
        raise validation_error(f"Invalid template parameter property '{unknown[0]}' (parameter {name})")
    type_name = body["Type"]
    ssm = _SSM_VALUE.fullmatch(str(type_name))
    if type_name not in _SCALAR_TYPES | _LIST_TYPES and (ssm is None or ssm.group(1) not in _SCALAR_TYPES | _LIST_TYPES):
        raise validation_error(f"Template format error: Unrecognized parameter type: {type_name}")
    default = body.get("Default")
    if isinstance(default, (dict, list)):
        raise validation_error("Template format error: Every Default member must be a string.")
    allowed = body.get("AllowedValues")
    if allowed is not None and not isinstance(allowed, list):
        raise validation_error(f"Template format error: Every AllowedValues value must be a list. ({name})")
    pattern = body.get("AllowedPattern")
    try:
        re.compile(pattern or "")
        spec = ParameterSpec(
            name,
            type_name,
            None if default is None else text_of(default),
            str(body.get("NoEcho", False)).lower() == "true",
            body.get("Description"),
            None if allowed is None else tuple(map(text_of, allowed)),
            pattern,
            _number(body, "MinLength", int),
            _number(body, "MaxLength", int),
            _number(body, "MinValue", Decimal),
            _number(body, "MaxValue", Decimal),
            body.get("ConstraintDescription"),
        )
    except re.error as error:
        raise unsupported(f"The AllowedPattern of parameter {name} ({error}): a pattern that is not also Python's") from error
    except (ValueError, InvalidOperation) as error:
        raise validation_error(f"Template format error: a length or value limit of parameter {name} is not a number.") from error
    return spec


def _number(body: Mapping[str, Json], key: str, kind: Callable[[str], Any]) -> Any:
    return kind(str(body[key])) if key in body else None


def resolve(
    specs: Mapping[str, ParameterSpec],
    given: Sequence[Mapping[str, Json]],
    previous: Mapping[str, ParameterValue] | None,
    ssm_value: Callable[[str], str | None],
) -> dict[str, ParameterValue]:
    """Return the value of every declared parameter.

    Args:
        specs: The declared parameters.
        given: The request's Parameters: ParameterKey with ParameterValue or UsePreviousValue.
        previous: The stack's present values; None when it is being created.
        ssm_value: Reads an SSM parameter; None when there is none of that name.

    Raises:
        ServiceError: Unknown, missing or wrong values, with AWS's messages.
    """
    keys = [str(item.get("ParameterKey")) for item in given]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise validation_error(f"Duplicate parameter keys: [{', '.join(twice)}]")
    unknown = [key for key in keys if key not in specs]
    if unknown:
        raise validation_error(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    by_key = dict(zip(keys, given, strict=True))
    raw: dict[str, str] = {}
    missing: list[str] = []
    for name, spec in specs.items():
        item = by_key.get(name, {})
        if item.get("UsePreviousValue"):
            if "ParameterValue" in item:
                raise validation_error(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true and non empty value for a parameter"
                )
            if previous is None or name not in previous:
                raise validation_error(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter key not in the previous template"
                )
            raw[name] = previous[name].raw
        elif item.get("ParameterValue") is not None:
            raw[name] = item["ParameterValue"]
        elif spec.default is not None:
            raw[name] = spec.default
        else:
            missing.append(name)
    if missing:
        raise validation_error(f"Parameters: [{', '.join(missing)}] must have values")
    return {name: _value(spec, raw[name], ssm_value) for name, spec in specs.items()}


def _value(spec: ParameterSpec, raw: str, ssm_value: Callable[[str], str | None]) -> ParameterValue:
    _check(spec, raw, spec.type if spec.ssm_type is None else "String")
    if spec.ssm_type is None:
        return ParameterValue(raw, _split(raw) if spec.is_list else raw)
    resolved = ssm_value(raw)
    if resolved is None:
        raise validation_error(f"Unable to fetch parameters [{raw}] from parameter store for this account.")
    return ParameterValue(raw, _split(resolved) if spec.is_list else resolved, resolved)


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _check(spec: ParameterSpec, raw: str, type_name: str) -> None:
    name = spec.name
    if len(raw.encode()) > _MAX_VALUE_BYTES:
        raise validation_error(f"Parameter '{name}' must be at most {_MAX_VALUE_BYTES} bytes long")
    for item in _split(raw) if spec.is_list and spec.ssm_type is None else [raw]:
        if spec.allowed_values is not None and item not in spec.allowed_values:
            raise _broken(spec, f"Parameter '{name}' must be one of AllowedValues")
        if type_name in ("Number", "List<Number>"):
            _check_number(spec, item)
            continue
        if spec.allowed_pattern is not None and not re.fullmatch(spec.allowed_pattern, item):
            raise _broken(spec, f"Parameter '{name}' must match pattern {spec.allowed_pattern}")
        if spec.minimum_length is not None and len(item) < spec.minimum_length:
            raise _broken(spec, f"Parameter '{name}' must contain at least {spec.minimum_length} characters")
        if spec.maximum_length is not None and len(item) > spec.maximum_length:
            raise _broken(spec, f"Parameter '{name}' must contain at most {spec.maximum_length} characters")
        if type_name.removeprefix("List<").removesuffix(">") in _EC2_TYPES | {"AWS::Route53::HostedZone::Id"} and not item:
            raise validation_error(f"Parameter validation failed: parameter value  for parameter name {name} does not exist.")


def _check_number(spec: ParameterSpec, item: str) -> None:
    try:
        number = Decimal(item)
        if not number.is_finite():
            raise InvalidOperation
    except InvalidOperation as error:
        raise validation_error(f"Parameter '{spec.name}' must be a number.") from error
    if spec.minimum is not None and number < spec.minimum:
        raise _broken(spec, f"Parameter '{spec.name}' must be a number not less than {spec.minimum}")
    if spec.maximum is not None and number > spec.maximum:
        raise _broken(spec, f"Parameter '{spec.name}' must be a number not greater than {spec.maximum}")


def _broken(spec: ParameterSpec, message: str) -> ServiceError:
    if spec.constraint_description:
        return validation_error(f"Parameter '{spec.name}' failed to satisfy constraint: {spec.constraint_description}")
    return validation_error(message)
