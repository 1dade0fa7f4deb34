"""Templates: JSON or YAML text to a checked `Template`, with AWS's messages for what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.errors import ServiceError

Json = Any

#: YAML tags that stand for ``Fn::<name>``; Ref and Condition have no prefix.
_SHORT_FORMS = frozenset(
    (
        "Base64", "Cidr", "FindInMap", "GetAtt", "GetAZs", "If", "ImportValue", "Join", "Select", "Split", "Sub",
        "And", "Equals", "Not", "Or", "Transform", "Length", "ToJsonString",
    )
)  # fmt: skip
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


def parse_template(text: str) -> Template:
    """Parse and check the structure of a template.

    Raises:
        ServiceError: ValidationError, as AWS says it; or something that localcloud does not support, named.
    """
    return _build(load(text))


def load(text: str) -> Json:
    """Return the template's data: JSON, or YAML with all short forms written out.

    Raises:
        ServiceError: The text is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise validation_error(f"Template format error: JSON not well-formed. (line {error.lineno}, column {error.colno})") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return _construct(node, loader, set()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise validation_error(f"Template format error: YAML not well-formed.{where}") from error
    except yaml.YAMLError as error:
        raise validation_error(f"Template format error: YAML not well-formed. ({error})") from error
    finally:
        loader.dispose()


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise validation_error(f"Template format error: JSON not well-formed. Duplicate key '{next(k for k in keys if keys.count(k) > 1)}'")
    return result


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's parser where it is built in: ten times faster
    """YAML as CloudFormation reads it: no timestamps (a policy's Version stays text)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct(node: yaml.Node, loader: Any, seen: set[int]) -> Json:
    if id(node) in seen:
        raise _at(node, "YAML aliases are not allowed in CloudFormation templates")
    seen.add(id(node))
    tag = node.tag
    if tag.startswith("!"):
        return _short_form(tag[1:], node, loader, seen)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Json] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == "tag:yaml.org,2002:merge":
                raise _at(key_node, "a key must be a plain string")
            if key in result:
                raise _at(key_node, f"duplicate key '{key}'")
            result[key] = _construct(value_node, loader, seen)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, loader, seen) for item in node.value]
    if tag not in ("tag:yaml.org,2002:" + kind for kind in ("str", "int", "float", "bool", "null")):
        raise _at(node, f"the YAML tag {tag} is not allowed in CloudFormation templates")
    try:
        return loader.construct_object(node)
    except ValueError as error:  # e.g. `!!int x`
        raise _at(node, f"'{node.value}' is not a value of {tag}") from error


def _short_form(name: str, node: yaml.Node, loader: Any, seen: set[int]) -> Json:
    if isinstance(node, yaml.ScalarNode):
        value: Json = node.value
    elif isinstance(node, yaml.SequenceNode):
        value = [_construct(item, loader, seen) for item in node.value]
    else:
        value = _construct(yaml.MappingNode("tag:yaml.org,2002:map", node.value), loader, seen)
    if name in ("Ref", "Condition"):
        return {name: value}
    if name not in _SHORT_FORMS:
        raise _at(node, f"the tag !{name} is not one of CloudFormation's functions")
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {"Fn::" + name: value}


def _at(node: yaml.Node, problem: str) -> ServiceError:
    mark = node.start_mark
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return validation_error(f"Template format error: {problem}.{where}")


def _build(data: Json) -> Template:
    if not isinstance(data, dict):
        raise validation_error("Template format error: unsupported structure.")
    unknown = [key for key in data if key not in _SECTIONS]
    if unknown:
        raise validation_error(f"Invalid template property or properties [{', '.join(unknown)}]")
    _refuse_null(data, "")
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


def _refuse_null(value: Json, path: str) -> None:
    if value is None:
        raise validation_error(f"Template format error: [{path}] 'null' values are not allowed in templates")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _refuse_null(item, f"{path}/{key}")


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
