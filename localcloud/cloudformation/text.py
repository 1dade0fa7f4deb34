"""The text of a template: JSON, or YAML with CloudFormation's short forms, to plain data."""

from __future__ import annotations

import json
from typing import Any

import yaml

from localcloud.cloudformation.errors import validation_error
from localcloud.errors import ServiceError

Json = Any

#: YAML tags that stand for ``Fn::<name>``; Ref and Condition have no prefix.
_SHORT_FORMS = frozenset(
    (
        "Base64", "Cidr", "FindInMap", "GetAtt", "GetAZs", "If", "ImportValue", "Join", "Select", "Split", "Sub",
        "And", "Equals", "Not", "Or", "Transform", "Length", "ToJsonString",
    )
)  # fmt: skip
_PLAIN_TAGS = frozenset("tag:yaml.org,2002:" + kind for kind in ("str", "int", "float", "bool", "null"))
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE_TAG = "tag:yaml.org,2002:merge"
#: No template that means something is nested deeper; one that is could exhaust the stack.
MAX_DEPTH = 100


def load(text: str) -> Json:
    """Return a template's data, all short forms written out.

    Raises:
        ServiceError: ValidationError, as AWS says it, with the line where that is known.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise validation_error(f"Template format error: JSON not well-formed. (line {error.lineno}, column {error.colno})") from error
        except RecursionError as error:
            raise too_deep() from error
    return _Yaml(text).load()


def too_deep() -> ServiceError:
    """Return the error for a template that is nested too deeply."""
    return validation_error(f"Template format error: the template is nested more than {MAX_DEPTH} levels deep.")


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


class _Yaml:
    """Reads one YAML document from the parser's events. (PyYAML's own composer follows nesting in C without a limit, and crashes.)"""

    def __init__(self, text: str) -> None:
        try:
            self._loader: Any = _Loader(text)
        except yaml.YAMLError as error:
            raise validation_error(f"Template format error: YAML not well-formed. ({error})") from error

    def load(self) -> Json:
        """Return the document's data; None when there is none."""
        try:
            self._next()  # the stream's start
            if self._loader.check_event(yaml.StreamEndEvent):
                return None
            self._next()  # the document's start
            value = self._value(self._next(), 0)
            self._next()  # the document's end
            if not self._loader.check_event(yaml.StreamEndEvent):
                raise validation_error("Template format error: YAML not well-formed. (there is more than one document)")
            return value
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            raise validation_error(f"Template format error: YAML not well-formed.{where}") from error
        except yaml.YAMLError as error:
            raise validation_error(f"Template format error: YAML not well-formed. ({error})") from error
        finally:
            self._loader.dispose()

    def _next(self) -> Any:
        return self._loader.get_event()

    def _value(self, event: Any, depth: int) -> Json:
        if depth > MAX_DEPTH:
            raise too_deep()
        if isinstance(event, yaml.AliasEvent):
            raise _at(event, "YAML aliases are not allowed in CloudFormation templates")
        tag = event.tag if isinstance(event.tag, str) else ""
        if isinstance(event, yaml.ScalarEvent):
            value: Json = event.value if tag.startswith("!") and tag != "!" else self._scalar(event)
        elif tag and not tag.startswith("!") and tag not in _COLLECTION_TAGS:
            raise _at(event, f"the YAML tag {tag} is not allowed in CloudFormation templates")
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not self._loader.check_event(yaml.SequenceEndEvent):
                value.append(self._value(self._next(), depth + 1))
            self._next()
        else:
            value = self._mapping(depth)
        if not tag.startswith("!") or tag == "!":
            return value
        return _short_form(event, tag[1:], value)

    def _mapping(self, depth: int) -> dict[str, Json]:
        result: dict[str, Json] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            key = self._next()
            if not isinstance(key, yaml.ScalarEvent) or self._tag(key) == _MERGE_TAG:
                raise _at(key, "a key must be a plain string")
            if key.value in result:
                raise _at(key, f"duplicate key '{key.value}'")
            result[key.value] = self._value(self._next(), depth + 1)
        self._next()
        return result

    def _tag(self, event: Any) -> str:
        tag = event.tag
        return str(tag if tag not in (None, "!") else self._loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _scalar(self, event: Any) -> Json:
        tag = self._tag(event)
        if tag not in _PLAIN_TAGS:
            raise _at(event, f"the YAML tag {tag} is not allowed in CloudFormation templates")
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark))
        except (ValueError, KeyError) as error:  # e.g. `!!int x`
            raise _at(event, f"'{event.value}' is not a value of {tag}") from error


def _short_form(event: Any, name: str, value: Json) -> dict[str, Json]:
    if name in ("Ref", "Condition"):
        return {name: value}
    if name not in _SHORT_FORMS:
        raise _at(event, f"the tag !{name} is not one of CloudFormation's functions")
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {"Fn::" + name: value}


def _at(event: Any, problem: str) -> ServiceError:
    mark = event.start_mark
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return validation_error(f"Template format error: {problem}.{where}")
