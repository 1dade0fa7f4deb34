"""Intrinsic functions: evaluates what a template says, and finds what it refers to.

An evaluation may meet values that nobody knows yet (the id of a resource that is not made): those become `Unknown`, and so does whatever is computed from
them. That is how a template is checked, and a change set is made, before anything exists.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.template import Template

Json = Any

_SUB = re.compile(r"\$\{([^{}]*)\}")
#: Functions that are evaluated to a boolean; allowed in Conditions and as the first argument of Fn::If.
_CONDITION_FUNCTIONS = frozenset(("Fn::And", "Fn::Equals", "Fn::Not", "Fn::Or", "Condition"))
PSEUDO_PARAMETERS = frozenset(
    "AWS::" + name for name in ("AccountId", "NotificationARNs", "NoValue", "Partition", "Region", "StackId", "StackName", "URLSuffix")
)


@dataclass(frozen=True)
class Unknown:
    """A value that is not known before something else is made.

    Attributes:
        causes: What it waits for: ``LogicalId`` (its Ref), ``LogicalId.Attribute``, or an import or dynamic reference.
    """

    causes: frozenset[str]


class _NoValue:
    """``AWS::NoValue``: the key or item that has this value is left out."""


NO_VALUE = _NoValue()


def is_known(value: Json) -> bool:
    """Return whether no part of a value is `Unknown`."""
    return not causes(value)


def causes(value: Json) -> frozenset[str]:
    """Return what the unknown parts of a value wait for."""
    if isinstance(value, Unknown):
        return value.causes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return frozenset().union(*(causes(item) for item in items))


@dataclass
class Scope:
    """What names mean while a template is evaluated.

    Attributes:
        template: For its mappings and conditions.
        parameters: Parameter values: text, or a list of texts.
        pseudo: Pseudo parameters but AWS::NoValue.
        ref: The Ref of a resource by logical id (or `Unknown`).
        attribute: An attribute of a resource by logical id and name (or `Unknown`).
        export: The value of an export by name (or `Unknown`).
    """

    template: Template
    parameters: Mapping[str, Json]
    pseudo: Mapping[str, Json]
    ref: Callable[[str], Json]
    attribute: Callable[[str, str], Json]
    export: Callable[[str], Json]
    _conditions: dict[str, bool] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def condition(self, name: str) -> bool:
        """Return the value of a condition of the template.

        Raises:
            ServiceError: There is no such condition, or it depends on itself.
        """
        if name not in self.template.conditions:
            raise validation_error(f"Template format error: Unresolved condition dependency {name} in the Conditions block of the template")
        if name in self._open:
            raise validation_error(f"Template error: Found circular condition dependency between {self._open[-1]} and {name}")
        if name not in self._conditions:
            self._open.append(name)
            try:
                self._conditions[name] = self._boolean(self.template.conditions[name])
            finally:
                self._open.pop()
        return self._conditions[name]

    def is_active(self, condition: str | None) -> bool:
        """Return whether something under a Condition (or none) is there."""
        return condition is None or self.condition(condition)

    def evaluate(self, node: Json) -> Json:
        """Return the value of a piece of template.

        Raises:
            ServiceError: A function is used wrongly, or refers to something that does not exist.
        """
        value = self._evaluate(node)
        return value if value is not NO_VALUE else None

    def _evaluate(self, node: Json) -> Json:
        if isinstance(node, list):
            return [value for value in map(self._evaluate, node) if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        function = function_name(node)
        if function is None:
            values = {key: self._evaluate(item) for key, item in node.items()}
            return {key: value for key, value in values.items() if value is not NO_VALUE}
        argument = node[function]
        if function == "Ref":
            return self._ref(argument)
        if function in _CONDITION_FUNCTIONS:
            return self._boolean(node)
        return _FUNCTIONS[function](self, argument)

    def _ref(self, name: Json) -> Json:
        if not isinstance(name, str) or not name:
            raise validation_error("Template error: every Ref object must have a single String value.")
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return self.ref(name)

    def _boolean(self, node: Json) -> bool:
        function = function_name(node) if isinstance(node, dict) else None
        argument = node[function] if function else node
        if function == "Condition":
            if not isinstance(argument, str):
                raise validation_error("Template error: every Condition object must have a single String value.")
            return self.condition(argument)
        if function == "Fn::Equals":
            if not isinstance(argument, list) or len(argument) != 2:
                raise validation_error("Template error: every Fn::Equals object requires a list of 2 string parameters.")
            left, right = (self._evaluate(item) for item in argument)
            return bool(_text_or_value(left) == _text_or_value(right))
        if function == "Fn::Not":
            if not isinstance(argument, list) or len(argument) != 1:
                raise validation_error("Template error: every Fn::Not object requires a list of exactly one condition.")
            return not self._boolean(argument[0])
        if function in ("Fn::And", "Fn::Or"):
            if not isinstance(argument, list) or not 2 <= len(argument) <= 10:
                raise validation_error(
                    f"Template error: every {function} object requires a list of at least 2 and at most 10 boolean parameters."
                )
            values = [self._boolean(item) for item in argument]
            return all(values) if function == "Fn::And" else any(values)
        raise validation_error("Template error: Conditions can only be boolean operations on parameters and other conditions.")

    def _text(self, node: Json, complaint: str) -> str | Unknown:
        value = self._evaluate(node)
        if isinstance(value, Unknown):
            return value
        if isinstance(value, (dict, list)) or value is NO_VALUE:
            raise validation_error(complaint)
        return text_of(value)

    def _if(self, argument: Json) -> Json:
        if not isinstance(argument, list) or len(argument) != 3 or not isinstance(argument[0], (str, dict)):
            raise validation_error("Template error: Fn::If requires a list argument with three elements")
        chosen = self.condition(argument[0]) if isinstance(argument[0], str) else self._boolean(argument[0])
        return self._evaluate(argument[1] if chosen else argument[2])

    def _get_att(self, argument: Json) -> Json:
        logical_id, attribute = get_att_arguments(argument)
        name = self._evaluate(attribute)
        if not isinstance(name, str):
            raise validation_error(_GET_ATT)
        return self.attribute(logical_id, name)

    def _join(self, argument: Json) -> Json:
        complaint = (
            "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be joined or a function "
            "that returns a list of strings (such as Fn::GetAZs) to be joined."
        )
        if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str):
            raise validation_error(complaint)
        items = self._evaluate(argument[1])
        if not is_known(items):
            return Unknown(causes(items))
        if not isinstance(items, list) or any(isinstance(item, (dict, list)) for item in items):
            raise validation_error(complaint)
        return argument[0].join(map(text_of, items))

    def _select(self, argument: Json) -> Json:
        if not isinstance(argument, list) or len(argument) != 2:
            raise validation_error(
                "Template error: every Fn::Select object requires two non-null parameters, the first is a single integer value and the second a list of values"
            )
        index = self._text(argument[0], "Template error: Fn::Select requires an integer index")
        items = self._evaluate(argument[1])
        if isinstance(index, Unknown) or isinstance(items, Unknown):
            return Unknown(causes([index, items]))
        if not isinstance(items, list):
            raise validation_error("Template error: Fn::Select requires a list argument with two elements: an integer index and a list")
        if not index.isdigit() or int(index) >= len(items):
            raise validation_error(f"Template error: Fn::Select cannot select nonexistent value at index {index}")
        return items[int(index)]

    def _split(self, argument: Json) -> Json:
        complaint = (
            "Template error: every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be split or a function "
            "that returns a string to be split."
        )
        if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str) or not argument[0]:
            raise validation_error(complaint)
        value = self._text(argument[1], complaint)
        return value if isinstance(value, Unknown) else value.split(argument[0])

    def _sub(self, argument: Json) -> Json:
        text, variables = sub_arguments(argument)
        local = {name: self._evaluate(value) for name, value in variables.items()}
        unknown: set[str] = set()

        def replace(match: re.Match[str]) -> str:
            name = match.group(1).strip()
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in local:
                value = local[name]
            elif "." in name:
                value = self._get_att(name.split(".", 1))
            else:
                value = self._ref(name)
            if isinstance(value, Unknown):
                unknown.update(value.causes)
                return ""
            if isinstance(value, (dict, list)) or value is NO_VALUE:
                raise validation_error(f"Template error: variable {name} in Fn::Sub expression does not resolve to a string")
            return text_of(value)

        result = _SUB.sub(replace, text)
        return Unknown(frozenset(unknown)) if unknown else result

    def _find_in_map(self, argument: Json) -> Json:
        extended = self.template.language_extensions
        if not isinstance(argument, list) or not (len(argument) == 3 or (extended and len(argument) == 4)):
            raise validation_error(
                "Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the attribute for return value"
            )
        default = argument[3] if len(argument) == 4 else None
        if default is not None and (not isinstance(default, dict) or set(default) != {"DefaultValue"}):
            raise validation_error("Template error: the fourth parameter of Fn::FindInMap must be an object with the key DefaultValue")
        complaint = "Template error: the parameters of Fn::FindInMap must resolve to strings"
        keys = [self._text(item, complaint) for item in argument[:3]]
        if not is_known(keys):
            return Unknown(causes(keys))
        found: Json = self.template.mappings
        for depth, key in enumerate(keys):
            if not isinstance(found, dict) or key not in found:
                if default is not None:
                    return self._evaluate(default["DefaultValue"])
                if depth == 0:
                    raise validation_error(f"Template error: Mapping named '{key}' is not present in the 'Mappings' section of template.")
                raise validation_error(f"Template error: Unable to get mapping for {'::'.join(map(str, keys))}")
            found = found[key]
        return self._evaluate(found)

    def _import_value(self, argument: Json) -> Json:
        name = self._text(argument, "Template error: the attribute in Fn::ImportValue must be a string or a function that returns a string")
        return name if isinstance(name, Unknown) else self.export(name)

    def _base64(self, argument: Json) -> Json:
        value = self._text(argument, "Template error: every Fn::Base64 object must have a String-typed value.")
        return value if isinstance(value, Unknown) else base64.b64encode(value.encode()).decode()

    def _get_azs(self, argument: Json) -> Json:
        region = self._text(argument, "Template error: Fn::GetAZs requires the name of a region") or self.pseudo["AWS::Region"]
        if region != self.pseudo["AWS::Region"]:
            raise unsupported(f"Fn::GetAZs for the region {region}: this is {self.pseudo['AWS::Region']}, and the only one, which")
        return [f"{region}{zone}" for zone in "abc"]

    def _cidr(self, argument: Json) -> Json:
        complaint = "Template error: every Fn::Cidr object requires two or three parameters, (1) ipBlock, (2) count and (3) cidrBits"
        if not isinstance(argument, list) or not 2 <= len(argument) <= 3:
            raise validation_error(complaint)
        values = [self._text(item, complaint) for item in argument]
        if not is_known(values):
            return Unknown(causes(values))
        try:
            network = ipaddress.ip_network(str(values[0]))
            count = int(str(values[1]))
            # Without cidrBits, AWS uses the bits that still hold `count` subnets; with it, a subnet has 2^cidrBits addresses.
            prefix = network.max_prefixlen - int(str(values[2])) if len(values) == 3 else network.prefixlen + max(count - 1, 0).bit_length()
            subnets = network.subnets(new_prefix=prefix)
            result = [str(subnet) for subnet, _ in zip(subnets, range(count), strict=False)]
        except ValueError as error:
            raise validation_error(f"{complaint} ({error})") from error
        if not 1 <= count <= 256 or len(result) < count:
            raise validation_error(f"Template error: Fn::Cidr cannot make {count} blocks of {values[0]}")
        return result

    def _length(self, argument: Json) -> Json:
        value = self._evaluate(argument)
        if isinstance(value, Unknown):
            return value
        if not isinstance(value, list):
            raise validation_error("Template error: Fn::Length requires a list")
        return len(value)

    def _to_json_string(self, argument: Json) -> Json:
        if not isinstance(argument, (dict, list)):
            raise validation_error("Template error: Fn::ToJsonString requires an object or a list")
        value = self._evaluate(argument)
        return json.dumps(value, separators=(",", ":")) if is_known(value) else Unknown(causes(value))

    def _extension(self, function: Callable[[Scope, Json], Json], name: str, argument: Json) -> Json:
        if not self.template.language_extensions:
            raise validation_error(f"Template error: {name} needs the transform AWS::LanguageExtensions")
        return function(self, argument)


_FUNCTIONS: dict[str, Callable[[Scope, Json], Json]] = {
    "Fn::Base64": Scope._base64,
    "Fn::Cidr": Scope._cidr,
    "Fn::FindInMap": Scope._find_in_map,
    "Fn::GetAZs": Scope._get_azs,
    "Fn::GetAtt": Scope._get_att,
    "Fn::If": Scope._if,
    "Fn::ImportValue": Scope._import_value,
    "Fn::Join": Scope._join,
    "Fn::Length": lambda scope, argument: scope._extension(Scope._length, "Fn::Length", argument),
    "Fn::Select": Scope._select,
    "Fn::Split": Scope._split,
    "Fn::Sub": Scope._sub,
    "Fn::ToJsonString": lambda scope, argument: scope._extension(Scope._to_json_string, "Fn::ToJsonString", argument),
}
_GET_ATT = "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute"


def function_name(node: Mapping[str, Json]) -> str | None:
    """Return which function an object is (``Ref``, ``Condition``, ``Fn::...``), or None when it is plain data.

    Raises:
        ServiceError: It is a function that does not exist or has company.
    """
    if len(node) == 1:
        key, value = next(iter(node.items()))
        # A policy statement that has nothing but conditions is data: only `Condition: <name>` is the function.
        if key == "Ref" or (key == "Condition" and isinstance(value, str)):
            return key
    for key in node:
        if isinstance(key, str) and key.startswith("Fn::"):
            if key not in _FUNCTIONS and key not in _CONDITION_FUNCTIONS:
                raise unsupported(f"The function {key}")
            if len(node) > 1:
                raise validation_error(
                    f"Template error: an object with {key} cannot have other keys ({', '.join(k for k in node if k != key)})"
                )
            return key
    return None


def get_att_arguments(argument: Json) -> tuple[str, Json]:
    """Return the logical id and the attribute (text, or a function) of a Fn::GetAtt."""
    if isinstance(argument, str):
        argument = argument.split(".", 1)
    if isinstance(argument, list) and len(argument) > 2 and all(isinstance(item, str) for item in argument):
        argument = [argument[0], ".".join(argument[1:])]
    if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str) or not argument[0] or not argument[1]:
        raise validation_error(_GET_ATT)
    return argument[0], argument[1]


def sub_arguments(argument: Json) -> tuple[str, dict[str, Json]]:
    """Return the text and the local variables of a Fn::Sub."""
    if isinstance(argument, str):
        return argument, {}
    if isinstance(argument, list) and len(argument) == 2 and isinstance(argument[0], str) and isinstance(argument[1], dict):
        return argument[0], argument[1]
    raise validation_error(
        "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first argument, and an optional "
        "second argument to specify a mapping of values to replace in the string"
    )


def text_of(value: Json) -> str:
    """Return a scalar as CloudFormation writes it into text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _text_or_value(value: Json) -> Json:
    return value if isinstance(value, (dict, list)) else text_of(value)


@dataclass(frozen=True)
class Reference:
    """One mention of something else in a piece of template.

    Attributes:
        name: A logical id, a parameter or a pseudo parameter.
        attribute: The attribute of a Fn::GetAtt; ``"*"`` when it is computed; None for a Ref.
    """

    name: str
    attribute: str | None = None


def references(node: Json, scope: Scope | None = None) -> Iterator[Reference]:
    """Yield every Ref and Fn::GetAtt (also in Fn::Sub) of a piece of template.

    Args:
        node: The piece.
        scope: With it, only the branches of Fn::If that its conditions choose are followed; without, all are.
    """
    if isinstance(node, list):
        for item in node:
            yield from references(item, scope)
    if not isinstance(node, dict):
        return
    function = function_name(node)
    if function is None:
        for item in node.values():
            yield from references(item, scope)
        return
    argument = node[function]
    if function == "Ref":
        if not isinstance(argument, str):
            raise validation_error("Template error: every Ref object must have a single String value.")
        yield Reference(argument)
    elif function == "Fn::GetAtt":
        logical_id, attribute = get_att_arguments(argument)
        yield Reference(logical_id, attribute if isinstance(attribute, str) else "*")
        yield from references(attribute, scope)
    elif function == "Fn::Sub":
        text, variables = sub_arguments(argument)
        for match in _SUB.finditer(text):
            name = match.group(1).strip()
            if not name.startswith("!") and name not in variables:
                logical_id, dot, attribute_name = name.partition(".")
                yield Reference(logical_id, attribute_name if dot else None)
        yield from references(variables, scope)
    elif function == "Fn::If" and scope is not None and isinstance(argument, list) and len(argument) == 3 and isinstance(argument[0], str):
        yield from references(argument[1] if scope.condition(argument[0]) else argument[2], scope)
    elif function == "Fn::If" and isinstance(argument, list) and len(argument) == 3:
        yield from references(argument[1:], scope)
    else:
        yield from references(argument, scope)


def condition_names(node: Json) -> Iterator[str]:
    """Yield every condition that a piece of template names (in Fn::If and ``Condition``)."""
    items: Collection[Json] = ()
    if isinstance(node, list):
        items = node
    elif isinstance(node, dict):
        items = node.values()
        function = function_name(node)
        if function == "Condition":
            yield node[function]
        elif function == "Fn::If" and isinstance(node[function], list) and node[function] and isinstance(node[function][0], str):
            yield node[function][0]
    for item in items:
        yield from condition_names(item)
