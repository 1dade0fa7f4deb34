"""Templates: data to a checked `Template`, with AWS's messages for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.text import MAX_DEPTH, load, too_deep

Json = Any

_SECTIONS = (
    "AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Rules", "Mappings", "Conditions", "Transform", "Resources", "Outputs",
)  # fmt: skip
_RESOURCE_ATTRIBUTES = frozenset(
    ("Type", "Properties", "DependsOn", "Condition", "Metadata", "DeletionPolicy", "UpdateReplacePolicy", "CreationPolicy", "UpdatePolicy")
)
_OUTPUT_ATTRIBUTES = frozenset(("Description", "Value", "Export", "Condition"))
LANGUAGE_EXTENSIONS = "AWS::LanguageExtensions"
#: AWS's limits: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_BODY_BYTES = 51_200
MAX_URL_BYTES = 1_048_576
_MAX_MEMBERS = {"Resources": 500, "Parameters": 200, "Outputs": 200, "Mappings": 200}


@dataclass(frozen=True)
class Resource:
    """One member of a template's Resources, as written (functions not evaluated)."""

    logical_id: str
    type: str
    properties: dict[str, Json]
    depends_on: tuple[str, ...] = ()
    condition: str | None = None
    deletion_policy: Json = None
    update_replace_policy: Json = None
    metadata: Json = None


@dataclass(frozen=True)
class Output:
    """One member of a template's Outputs, as written."""

    key: str
    value: Json
    description: str | None = None
    export: Json = None
    condition: str | None = None


@dataclass(frozen=True)
class Template:
    """A template whose structure has been checked."""

    resources: dict[str, Resource]
    parameters: dict[str, dict[str, Json]] = field(default_factory=dict)
    mappings: dict[str, Json] = field(default_factory=dict)
    conditions: dict[str, Json] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    transforms: tuple[str, ...] = ()
    description: str | None = None
    metadata: Json = None
    version: str | None = None

    @property
    def language_extensions(self) -> bool:
        """Whether ``Transform: AWS::LanguageExtensions`` is declared."""
        return LANGUAGE_EXTENSIONS in self.transforms


@lru_cache(maxsize=16)
def parse_template(text: str) -> Template:
    """Parse and check the structure of a template. The same one is returned for the same text: whoever looks at a stack needs its template.

    Raises:
        ServiceError: ValidationError, as AWS says it; or something that localcloud does not support, named.
    """
    return _build(load(text))


def _build(data: Json) -> Template:
    if not isinstance(data, dict):
        raise validation_error("Template format error: unsupported structure.")
    _refuse_null(data, "")
    unknown = [key for key in data if key not in _SECTIONS]
    if unknown:
        raise validation_error(f"Invalid template property or properties [{', '.join(unknown)}]")
    version = data.get("AWSTemplateFormatVersion")
    if version is not None and version != "2010-09-09":
        raise validation_error("Template format error: unsupported value for AWSTemplateFormatVersion.")
    description = data.get("Description")
    if description is not None and not isinstance(description, str):
        raise validation_error("Template format error: Description must be a string.")
    transforms = _transforms(data.get("Transform"))
    sections = {name: _section(data, name) for name in ("Parameters", "Mappings", "Conditions", "Resources", "Outputs", "Rules")}
    if not sections["Resources"]:
        raise validation_error("Template format error: At least one Resources member must be defined.")
    if sections["Rules"]:
        raise unsupported("The template section Rules")
    for name, limit in _MAX_MEMBERS.items():
        if len(sections[name]) > limit:
            raise validation_error(
                f"Template format error: Number of {name.lower()}, {len(sections[name])}, is greater than maximum allowed, {limit}"
            )
    _check_mappings(sections["Mappings"])
    for name, condition in sections["Conditions"].items():
        if not isinstance(condition, dict) or len(condition) != 1:
            raise validation_error(
                f"Template format error: Conditions can only be boolean operations on parameters and other conditions ({name})"
            )
    resources = {name: _resource(name, body) for name, body in sections["Resources"].items()}
    outputs = {name: _output(name, body) for name, body in sections["Outputs"].items()}
    clash = sorted(set(resources) & set(sections["Parameters"]))
    if clash:
        raise validation_error(f"Template format error: Duplicate resource/parameter names: [{', '.join(clash)}]")
    return Template(
        resources,
        sections["Parameters"],
        sections["Mappings"],
        sections["Conditions"],
        outputs,
        transforms,
        description,
        data.get("Metadata"),
        version,
    )


def _refuse_null(value: Json, path: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise too_deep()
    if value is None:
        raise validation_error(f"Template format error: [{path}] 'null' values are not allowed in templates")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_null(item, f"{path}/{key}", depth + 1)


def _section(data: Mapping[str, Json], name: str) -> dict[str, Json]:
    section = data.get(name, {})
    if not isinstance(section, dict):
        raise validation_error(f"Template format error: {name} must be an object.")
    if name != "Rules":
        for key in section:
            if key.startswith("Fn::ForEach"):
                raise unsupported(f"Fn::ForEach (in {name})")
            # A condition's name may hold more than letters and digits; AWS checks the others.
            if name != "Conditions" and not re.fullmatch(r"[A-Za-z0-9]+", key) and name != "Mappings":
                raise validation_error(f"Template format error: {name[:-1]} name {key} is non alphanumeric.")
    return section


def _transforms(value: Json) -> tuple[str, ...]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    for name in names:
        if name != LANGUAGE_EXTENSIONS:
            raise unsupported(f"The transform {name.get('Name', name) if isinstance(name, dict) else name}")
    return tuple(names)


def _check_mappings(mappings: Mapping[str, Json]) -> None:
    for name, body in mappings.items():
        if not isinstance(body, dict) or not body:
            raise validation_error(f"Template format error: Every Mappings member {name} must be a map")
        for key, attributes in body.items():
            if not isinstance(attributes, dict):
                raise validation_error(
                    f"Template format error: Every Mappings attribute must be a String or a List ({name}.{key} is neither)."
                )


def _resource(name: str, body: Json) -> Resource:
    if not isinstance(body, dict):
        raise validation_error(f"Template format error: [/Resources/{name}] resource definition is malformed")
    unknown = sorted(set(body) - _RESOURCE_ATTRIBUTES)
    if unknown:
        raise validation_error(f"Invalid template resource property '{unknown[0]}' (resource {name})")
    type_name = body.get("Type")
    if not isinstance(type_name, str):
        raise validation_error(f"Template format error: [/Resources/{name}] Every Resources object must contain a Type member.")
    properties = body.get("Properties", {})
    if not isinstance(properties, dict):
        raise validation_error(f"Template format error: [/Resources/{name}/Properties] Properties must be an object.")
    for attribute in ("CreationPolicy", "UpdatePolicy"):
        if body.get(attribute):
            raise unsupported(f"{attribute} (resource {name})")
    depends_on = body.get("DependsOn", [])
    depends_on = [depends_on] if isinstance(depends_on, str) else depends_on
    if not isinstance(depends_on, list) or not all(isinstance(item, str) for item in depends_on):
        raise validation_error(f"Template format error: [/Resources/{name}/DependsOn] DependsOn must be a string or list of strings.")
    condition = body.get("Condition")
    if condition is not None and not isinstance(condition, str):
        raise validation_error(f"Template format error: Every Condition member must be a string. (resource {name})")
    return Resource(
        name,
        type_name,
        properties,
        tuple(depends_on),
        condition,
        body.get("DeletionPolicy"),
        body.get("UpdateReplacePolicy"),
        body.get("Metadata"),
    )


def _output(name: str, body: Json) -> Output:
    if not isinstance(body, dict) or "Value" not in body:
        raise validation_error(f"Template format error: Every Outputs member must contain a Value object ({name})")
    unknown = sorted(set(body) - _OUTPUT_ATTRIBUTES)
    if unknown:
        raise validation_error(f"Invalid template output property '{unknown[0]}' (output {name})")
    export = body.get("Export")
    if export is not None and (not isinstance(export, dict) or set(export) != {"Name"}):
        raise validation_error(f"Template format error: Output {name} is malformed. The Export must have a Name and nothing else.")
    return Output(name, body["Value"], body.get("Description"), None if export is None else export["Name"], body.get("Condition"))
