"""Import: resources that are there already become those of a new stack. Nothing about them is changed, and nothing else is made.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-manually.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from localcloud.cloudformation.blueprint import Blueprint, NothingYet
from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.state import Member, State

Json = Any


def planned(blueprint: Blueprint, wanted: Iterable[Mapping[str, Json]], state: State) -> dict[str, dict[str, Json]]:
    """Return what an import does, as ResourceChange documents by logical id.

    Args:
        blueprint: The new stack's template with its parameters.
        wanted: The request's ResourcesToImport.
        state: The stacks that there are.

    Raises:
        ServiceError: ValidationError: the template has more than what is imported, or something is not fit to be.
    """
    named = {item["LogicalResourceId"]: item for item in wanted}
    if not named:
        raise validation_error("ResourcesToImport must be specified for a change set of type IMPORT.")
    _refuse(set(blueprint.resources) - set(named), "is missing from ResourceToImport list.")
    _refuse(set(named) - set(blueprint.resources), "to import do not exist in the template.")
    _refuse(
        {name for name in named if not blueprint.active[name].deletion_policy},
        "must have DeletionPolicy attribute specified in the template.",
    )
    if blueprint.outputs:
        raise validation_error("As part of the import operation, you cannot modify or add [Outputs]")
    changes = {name: _change(blueprint, named[name], state) for name in blueprint.resources}
    if len({(change["ResourceType"], change["PhysicalResourceId"]) for change in changes.values()}) < len(changes):
        raise validation_error("ResourcesToImport names a resource twice.")
    return changes


def _refuse(names: set[str], why: str) -> None:
    if names:
        raise validation_error(f"Resources [{', '.join(sorted(names))}] {why}")


def _change(blueprint: Blueprint, item: Mapping[str, Json], state: State) -> dict[str, Json]:
    name, kind = item["LogicalResourceId"], item["ResourceType"]
    provider = blueprint.resources[name].provider
    if kind != provider.type:
        raise validation_error(f"The resource {name} is of type {provider.type} in the template, and of type {kind} in ResourcesToImport.")
    key = provider.imported_by
    if key is None:
        raise unsupported(f"Import of a resource of type {kind}")
    if set(item["ResourceIdentifier"]) != {key}:
        raise validation_error(f"The identifiers of the resource {name} must be [{key}].")
    chosen = provider.name.property
    if not chosen or not blueprint.properties(name, NothingYet()).get(chosen):
        raise validation_error(f"The resource {name} must have {chosen} in the template, which says what is imported.")
    identifier = str(item["ResourceIdentifier"][key])
    owner = owner_of(kind, identifier, state)
    if owner is not None:
        raise validation_error(f"Resource {identifier} of type {kind} already belongs to the stack {owner}.")
    return {
        "Action": "Import",
        "LogicalResourceId": name,
        "PhysicalResourceId": identifier,
        "ResourceType": kind,
        "Details": [],
        "Scope": [],
    }


def owner_of(kind: str, physical_id: str, state: State) -> str | None:
    """Return the name of the stack that has a physical resource, or None."""

    def has(member: Member) -> bool:
        return member.type == kind and member.current is not None and member.current.physical_id == physical_id

    return next((str(stack["StackName"]) for stack in state.stacks() if any(map(has, state.members(stack["StackId"])))), None)
