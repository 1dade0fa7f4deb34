"""What a template with its parameter values asks for: which resources, in which order, with which properties."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Protocol

from localcloud.cloudformation.dynamic import check_dynamic
from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.functions import PSEUDO_PARAMETERS, Reference, Scope, Unknown, condition_names, is_known, references, text_of
from localcloud.cloudformation.parameters import ParameterSpec, ParameterValue
from localcloud.cloudformation.provider import Properties, Provider, with_stack_tags
from localcloud.cloudformation.schema import PropertyError, convert
from localcloud.cloudformation.template import Resource, Template

Json = Any
#: Finds the provider of a resource type; None when localcloud has none.
Registry = Callable[[str], Provider | None]


class Policy(StrEnum):
    """What happens to a physical resource that the stack no longer needs."""

    DELETE = "Delete"
    RETAIN = "Retain"
    RETAIN_EXCEPT_ON_CREATE = "RetainExceptOnCreate"
    SNAPSHOT = "Snapshot"


class Live(Protocol):
    """What is known of the world while a template is evaluated; anything may be `Unknown`."""

    def ref(self, logical_id: str) -> Json:
        """Return a resource's physical id."""

    def attribute(self, logical_id: str, name: str) -> Json:
        """Return a resource's attribute."""

    def export(self, name: str) -> Json:
        """Return an exported value."""


class NothingYet:
    """The world before anything is made: every reference is `Unknown`."""

    def ref(self, logical_id: str) -> Json:
        """Return `Unknown`."""
        return Unknown(frozenset((logical_id,)))

    def attribute(self, logical_id: str, name: str) -> Json:
        """Return `Unknown`."""
        return Unknown(frozenset((f"{logical_id}.{name}",)))

    def export(self, name: str) -> Json:
        """Return `Unknown`."""
        return Unknown(frozenset((f"Fn::ImportValue {name}",)))


@dataclass(frozen=True)
class Wanted:
    """One resource that is to exist.

    Attributes:
        resource: As the template has it.
        provider: What makes it.
        dependencies: The logical ids that must be there first.
        deletion_policy: What happens when it leaves the stack.
        update_replace_policy: What happens to the old one when it is replaced.
    """

    resource: Resource
    provider: Provider
    dependencies: frozenset[str]
    deletion_policy: Policy
    update_replace_policy: Policy


class Blueprint:
    """A checked template with parameter values: the active resources in dependency order, and how to evaluate them.

    Raises:
        ServiceError: ValidationError, as AWS says it; or the name of a type, attribute or property that localcloud does not support.
    """

    def __init__(
        self,
        template: Template,
        specs: Mapping[str, ParameterSpec],
        parameters: Mapping[str, ParameterValue],
        pseudo: Mapping[str, Json],
        registry: Registry,
        stack_tags: Mapping[str, str],
    ) -> None:
        self.template = template
        self.specs = specs
        self.parameters = parameters
        self._pseudo = pseudo
        self._stack_tags = stack_tags
        check_references(template)
        scope = self.scope(NothingYet())
        for name in template.conditions:
            scope.condition(name)
        self.active = {name: resource for name, resource in template.resources.items() if scope.is_active(resource.condition)}
        providers = {name: _provider(resource, registry) for name, resource in self.active.items()}
        missing = sorted({provider.type for provider in providers.values() if pseudo["AWS::Region"] in provider.not_in})
        if missing:
            raise validation_error(f"Template format error: Unrecognized resource types: [{', '.join(missing)}]")
        wanted = {name: self._wanted(resource, providers, scope) for name, resource in self.active.items()}
        self.resources: dict[str, Wanted] = {
            name: wanted[name] for name in in_order({name: item.dependencies for name, item in wanted.items()})
        }
        for name in self.resources:
            properties = self.properties(name, NothingYet())
            check_dynamic(properties)
            try:
                self.resources[name].provider.validate(properties)
            except PropertyError as error:
                raise _property_error(wanted[name].resource, error) from error
        self.outputs = {name: output for name, output in template.outputs.items() if scope.is_active(output.condition)}
        for name, output in self.outputs.items():
            self._check_active(
                references([output.value, output.export], scope), f"Outputs block of the template (output {name})", providers
            )
            scope.evaluate([output.value, output.export])

    def scope(self, live: Live) -> Scope:
        """Return a scope in which the template can be evaluated."""
        values = {name: value.value for name, value in self.parameters.items()}
        return Scope(self.template, values, self._pseudo, live.ref, live.attribute, live.export)

    def properties(self, logical_id: str, live: Live) -> Properties:
        """Return a resource's evaluated and converted properties, the stack's tags included.

        Raises:
            ServiceError: A function is used wrongly, or a property does not fit or is not supported.
        """
        resource = self.active[logical_id]
        provider = self.resources[logical_id].provider
        evaluated = self.scope(live).evaluate(resource.properties)
        try:
            converted = convert(evaluated, provider.schema)
        except PropertyError as error:
            raise _property_error(resource, error) from error
        return with_stack_tags(provider.tags, converted, self._stack_tags)

    def metadata(self, logical_id: str, live: Live) -> Json:
        """Return a resource's evaluated Metadata."""
        return self.scope(live).evaluate(self.active[logical_id].metadata)

    def evaluated_outputs(self, live: Live) -> list[dict[str, str]]:
        """Return the stack's outputs as DescribeStacks shows them.

        Raises:
            ServiceError: An output's value is not text.
        """
        scope = self.scope(live)
        result = []
        for name, output in sorted(self.outputs.items()):
            value = scope.evaluate(output.value)
            if not is_known(value):
                continue
            if isinstance(value, (dict, list)) or value is None:
                raise validation_error(
                    f"Template format error: The Value field of every Outputs member must evaluate to a String. ({name})"
                )
            document = {"OutputKey": name, "OutputValue": text_of(value)}
            if output.description is not None:
                document["Description"] = output.description
            if output.export is not None:
                export = scope.evaluate(output.export)
                if not isinstance(export, str) or not export:
                    raise validation_error(
                        f"Template format error: Output {name} is malformed. The Name field of every Export member must be a String."
                    )
                document["ExportName"] = export
            result.append(document)
        return result

    def _wanted(self, resource: Resource, providers: Mapping[str, Provider], scope: Scope) -> Wanted:
        found = set(references(resource.properties, scope)) | set(references(resource.metadata, scope))
        self._check_active(found, "Resources block of the template", providers)
        provider = providers[resource.logical_id]
        dependencies = {item.name for item in found} | set(resource.depends_on)
        deletion = _policy(resource, "DeletionPolicy", resource.deletion_policy, provider, scope)
        replacement = _policy(resource, "UpdateReplacePolicy", resource.update_replace_policy, provider, scope)
        return Wanted(resource, provider, frozenset(dependencies & set(self.active)), deletion, replacement)

    def _check_active(self, found: Iterable[Reference], where: str, providers: Mapping[str, Provider]) -> None:
        missing = sorted({item.name for item in found if item.name in self.template.resources and item.name not in self.active})
        if missing:
            raise validation_error(f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the {where}")
        for item in found:
            if item.name in self.active and item.attribute not in (None, "*"):
                patterns = providers[item.name].attributes
                if not any(fnmatchcase(str(item.attribute), pattern) for pattern in patterns):
                    raise validation_error(
                        f"Template error: resource {item.name} does not support attribute type {item.attribute} in Fn::GetAtt"
                    )


def in_order(dependencies: Mapping[str, Iterable[str]]) -> list[str]:
    """Return names so that each comes after what it depends on.

    Raises:
        ServiceError: There is a circle.
    """
    try:
        return list(graphlib.TopologicalSorter(dependencies).static_order())
    except graphlib.CycleError as error:
        raise validation_error(f"Circular dependency between resources: [{', '.join(sorted(set(error.args[1])))}]") from error


def _provider(resource: Resource, registry: Registry) -> Provider:
    provider = registry(resource.type)
    if provider is None:
        raise unsupported(f"The resource type {resource.type} (resource {resource.logical_id})")
    return provider


def _property_error(resource: Resource, error: PropertyError) -> Exception:
    if error.unsupported:
        name = ".".join(part for part in error.path.split("/") if part and not part.isdigit())
        return unsupported(f"The property {name} of {resource.type} (resource {resource.logical_id})")
    return validation_error(f"Properties validation failed for resource {resource.logical_id} with message:\n#{error.path}: {error}")


def _policy(resource: Resource, attribute: str, value: Json, provider: Provider, scope: Scope) -> Policy:
    if value is None:
        return Policy.DELETE
    if isinstance(value, dict) and not scope.template.language_extensions:
        raise validation_error(f"Template format error: Every {attribute} member must be a string. (resource {resource.logical_id})")
    chosen = scope.evaluate(value)
    allowed = [policy for policy in Policy if attribute == "DeletionPolicy" or policy is not Policy.RETAIN_EXCEPT_ON_CREATE]
    if chosen not in allowed:
        raise validation_error(f"Template error: Unrecognized {attribute} {chosen} for resource {resource.logical_id}")
    if chosen == Policy.SNAPSHOT and not provider.snapshots:
        raise validation_error(f"Template error: resource type {resource.type} does not support deletion policy Snapshot")
    return Policy(chosen)


def check_references(template: Template) -> None:
    """Check every name that the template mentions, also in branches that no condition chooses.

    Raises:
        ServiceError: As AWS says it.
    """
    known = set(template.resources) | set(template.parameters) | PSEUDO_PARAMETERS
    for name, body in template.conditions.items():
        outside = sorted({item.name for item in references(body) if item.name not in set(template.parameters) | PSEUDO_PARAMETERS})
        if outside:
            raise validation_error(
                f"Template format error: Unresolved dependencies {outside}. Cannot reference resources in the Conditions block of the template".replace(
                    "'", ""
                )
            )
        _check_conditions([*condition_names(body)], template, f"condition {name}")
    blocks: list[tuple[str, Json]] = [("Resources", [(r.properties, r.metadata) for r in template.resources.values()])]
    blocks.append(("Outputs", [(o.value, o.export) for o in template.outputs.values()]))
    for block, nodes in blocks:
        found = {item for pair in nodes for node in pair for item in references(node)}
        missing = sorted({item.name for item in found if item.name not in known and item.attribute is None})
        if missing:
            raise validation_error(
                f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the {block} block of the template"
            )
        undefined = sorted({item.name for item in found if item.attribute is not None and item.name not in template.resources})
        if undefined:
            raise validation_error(f"Template error: instance of Fn::GetAtt references undefined resource {undefined[0]}")
        for pair in nodes:
            for node in pair:
                _check_conditions(condition_names(node), template, block)
    for resource in template.resources.values():
        missing = sorted(set(resource.depends_on) - set(template.resources))
        if missing:
            raise validation_error(
                f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the Resources block of the template"
            )
        _check_conditions([resource.condition] if resource.condition else [], template, f"resource {resource.logical_id}")
    for output in template.outputs.values():
        _check_conditions([output.condition] if output.condition else [], template, f"output {output.key}")


def _check_conditions(names: Iterable[str], template: Template, where: str) -> None:
    for name in names:
        if name not in template.conditions:
            raise validation_error(f"Template format error: Condition {name} is not defined ({where})")
