"""CloudFormation templates as data: what is in them for given parameters, and what of them holds data.

Only what is needed to talk about a template before it is deployed; what CloudFormation makes of it is CloudFormation's to say (change sets).
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

#: What CreateStack, UpdateStack and CreateChangeSet take as TemplateBody, in bytes.
MAX_BODY_BYTES = 51_200
_RETAINING = ("Retain", "RetainExceptOnCreate")
#: What an expression is that only CloudFormation can evaluate.
UNKNOWN = object()
_NO_VALUE = object()
_PLACE = re.compile(r"\$\{(?P<literal>!?)(?P<name>[^}]+)\}")

Json = Any


@dataclass(frozen=True)
class Resource:
    """A resource of a template: `properties` as they are written, `holds_on` whether it survives the deletion of its stack."""

    logical_id: str
    type: str
    properties: Mapping[str, Json]
    condition: str | None
    holds_on: bool


class Template:
    """A parsed template. Short forms (`!Ref x`) are in it as long ones (`{"Ref": "x"}`)."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self.document = document
        self.resources: dict[str, Resource] = {
            name: Resource(
                name, body["Type"], body.get("Properties") or {}, body.get("Condition"), body.get("DeletionPolicy", "Delete") in _RETAINING
            )
            for name, body in document["Resources"].items()
        }

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Reads a template in YAML or JSON.

        Raises:
            yaml.YAMLError: it is neither.
        """
        return cls(yaml.load(text, _Loader))  # a SafeLoader with CloudFormation's tags

    @classmethod
    def read(cls, path: Path) -> "Template":
        """Reads a template from a file."""
        return cls.parse(path.read_text(encoding="utf-8"))

    def body(self) -> str:
        """Returns the template as compact JSON."""
        return json.dumps(self.document, separators=(",", ":"), sort_keys=False)

    @property
    def parameters(self) -> Collection[str]:
        """The names of the parameters that it declares."""
        return (self.document.get("Parameters") or {}).keys()

    def declared(self, values: Mapping[str, str]) -> dict[str, str]:
        """Returns those of `values` whose parameters it declares: CloudFormation refuses others."""
        return {name: value for name, value in values.items() if name in self.parameters}

    @cached_property
    def defaults(self) -> dict[str, str]:
        """The parameters' defaults, as texts; parameters without one are not in it."""
        return {name: _text(spec["Default"]) for name, spec in (self.document.get("Parameters") or {}).items() if "Default" in spec}

    def active(self, parameters: Mapping[str, str]) -> dict[str, Resource]:
        """Returns the resources that a stack with these parameters has."""
        scope = _Scope(self.document, self.defaults | dict(parameters))
        return {
            name: resource for name, resource in self.resources.items() if resource.condition is None or scope.holds(resource.condition)
        }

    def properties(self, resource: Resource, parameters: Mapping[str, str]) -> dict[str, Json]:
        """Returns a resource's properties as far as the parameters decide them; the rest is `UNKNOWN`."""
        evaluated = _Scope(self.document, self.defaults | dict(parameters)).evaluate(resource.properties)
        assert isinstance(evaluated, dict)
        return evaluated

    def only(self, kept: Mapping[str, Collection[str]]) -> "Template":
        """Returns a template of some resources, by logical id with the properties that they keep; their stack's deletion leaves them.

        It has no outputs: an import may not add any.
        """
        resources = {
            name: {
                "Type": self.resources[name].type,
                "DeletionPolicy": "Retain",
                "Properties": {key: self.resources[name].properties[key] for key in properties},
            }
            for name, properties in kept.items()
        }
        return self._part(resources, {})

    def what_holds_data(self, *, retained: bool = True) -> "Template":
        """Returns the part of the template that holds data: what survives the stack's deletion, and what that needs, parameters among it.

        A bucket's policy stays with the bucket. With `retained` false, deleting the stack deletes these resources too.
        """
        kept = {name for name, resource in self.resources.items() if resource.holds_on}
        kept |= {
            name
            for name, resource in self.resources.items()
            if resource.type == "AWS::S3::BucketPolicy" and references(resource.properties.get("Bucket")) & kept
        }
        waiting = set(kept)
        while waiting:
            body = self.document["Resources"][waiting.pop()]
            found = (references(body) | set(_names(body.get("DependsOn")))) & set(self.resources)
            waiting |= found - kept
            kept |= found
        resources = {name: dict(body) for name, body in self.document["Resources"].items() if name in kept}
        if not retained:
            for body in resources.values():
                body.pop("DeletionPolicy", None)
                body.pop("UpdateReplacePolicy", None)
        gone = set(self.resources) - kept
        outputs = {
            name: output
            for name, output in (self.document.get("Outputs") or {}).items()
            if not references(output) & gone and output.get("Condition") is None
        }
        return self._part(resources, outputs)

    def _part(self, resources: Mapping[str, Json], outputs: Mapping[str, Json]) -> "Template":
        part = {**self.document, "Resources": resources, "Outputs": outputs}
        known = references([part[section] for section in ("Resources", "Outputs", "Conditions") if section in part])
        part["Parameters"] = {name: spec for name, spec in (self.document.get("Parameters") or {}).items() if name in known}
        # A section that is there must not be empty.
        return Template({name: section for name, section in part.items() if section or name == "Resources"})


def template_body(path: Path) -> str:
    """Returns what is sent as TemplateBody: the file's text, or without comments and spaces when it is too long for a request."""
    text = path.read_text(encoding="utf-8")
    return text if len(text.encode()) <= MAX_BODY_BYTES else Template.parse(text).body()


def references(value: Json) -> set[str]:
    """Returns the names that an expression refers to: parameters, resources, pseudo parameters."""
    return set(_references(value))


def _references(value: Json) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield str(item)
            elif key == "Fn::GetAtt":
                yield str(item[0] if isinstance(item, list) else item.split(".")[0])
            elif key == "Fn::Sub":
                text, own = item if isinstance(item, list) else (item, {})
                yield from (name for name in _substituted(text) if name not in own)
                yield from _references(own)
            else:
                yield from _references(item)


def _substituted(text: str) -> Iterator[str]:
    """The names in `${name}` and `${name.attribute}`; `${!literal}` is none."""
    for part in text.split("${")[1:]:
        name = part.partition("}")[0]
        if not name.startswith("!"):
            yield name.partition(".")[0]


class _Scope:
    """Evaluates what parameters decide."""

    def __init__(self, document: Mapping[str, Json], parameters: Mapping[str, str]) -> None:
        self._conditions = document.get("Conditions") or {}
        self._mappings = document.get("Mappings") or {}
        self._parameters = parameters

    def holds(self, condition: str) -> bool:
        return bool(self.evaluate(self._conditions[condition]))

    def evaluate(self, value: Json) -> Json:
        if isinstance(value, list):
            return [item for item in map(self.evaluate, value) if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function in ("Ref", "Condition") or function.startswith("Fn::"):
                return self._function(function, argument)
        return {key: item for key, item in ((key, self.evaluate(item)) for key, item in value.items()) if item is not _NO_VALUE}

    def _function(self, function: str, argument: Json) -> Json:
        match function:
            case "Ref":
                return _NO_VALUE if argument == "AWS::NoValue" else self._parameters.get(argument, UNKNOWN)
            case "Condition":
                return self.holds(argument)
            case "Fn::If":
                return self.evaluate(argument[1] if self.holds(argument[0]) else argument[2])
            case "Fn::Equals":
                left, right = (_text(self.evaluate(item)) for item in argument)
                return left == right
            case "Fn::Not":
                return not self.evaluate(argument[0])
            case "Fn::And":
                return all(self.evaluate(item) for item in argument)
            case "Fn::Or":
                return any(self.evaluate(item) for item in argument)
            case "Fn::Sub" if isinstance(argument, str):
                if not references({function: argument}) <= self._parameters.keys():
                    return UNKNOWN
                return _PLACE.sub(lambda place: f"${{{place['name']}}}" if place["literal"] else self._parameters[place["name"]], argument)
            case "Fn::FindInMap":
                table, first, second = (self.evaluate(item) for item in argument)
                return self._mappings.get(table, {}).get(first, {}).get(second, UNKNOWN)
        return UNKNOWN


def _text(value: Json) -> str:
    """A value as CloudFormation passes it to a parameter."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(_text, value)) if isinstance(value, list) else str(value)


def _names(value: Json) -> list[str]:
    return value if isinstance(value, list) else [] if value is None else [value]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's parser where it is built in: ten times faster
    """YAML with CloudFormation's short forms; dates stay texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _short_form(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Json]:
    value: Json
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _short_form)
