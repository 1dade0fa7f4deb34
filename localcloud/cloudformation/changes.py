"""What an update would do: the changes of a change set, and whether there are any."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.cloudformation.blueprint import Blueprint, NothingYet, Policy
from localcloud.cloudformation.comparison import Comparison
from localcloud.cloudformation.functions import Unknown, causes, is_known, references
from localcloud.cloudformation.live import read_export
from localcloud.cloudformation.parameters import ParameterValue
from localcloud.cloudformation.provider import Properties
from localcloud.cloudformation.state import Instance, Member, State
from localcloud.errors import ServiceError

Json = Any
_KNOWN_LATER = "{{changeSet:KNOWN_AFTER_APPLY}}"


class _PlannedLive:
    """The world as it will be, as far as that is known before an update: what is replaced or made has no id yet, what is changed no sure attributes."""

    def __init__(self, state: State, current: Mapping[str, Instance], changes: Mapping[str, dict[str, Json]], reverted: set[str]) -> None:
        self._state = state
        self._reverted = reverted
        self._current = current
        self._changes = changes

    def ref(self, logical_id: str) -> Json:
        """Return a resource's physical id, unless it may get another."""
        if self._is_kept(logical_id, self._current[logical_id].physical_id if logical_id in self._current else None):
            return self._current[logical_id].physical_id
        change = self._changes.get(logical_id)
        if logical_id not in self._current or (change is not None and change.get("Replacement") != "False"):
            return Unknown(frozenset((logical_id,)))
        return self._current[logical_id].physical_id

    def attribute(self, logical_id: str, name: str) -> Json:
        """Return a resource's attribute, unless the resource is changed."""
        if self._is_kept(logical_id, self._current[logical_id].attributes.get(name) if logical_id in self._current else None):
            return self._current[logical_id].attributes[name]
        if logical_id not in self._current or logical_id in self._changes or name not in self._current[logical_id].attributes:
            return Unknown(frozenset((f"{logical_id}.{name}",)))
        return self._current[logical_id].attributes[name]

    def _is_kept(self, logical_id: str, value: Json) -> bool:
        """Whether a value is made of a resource's name, which a resource keeps of which only drift is reverted."""
        return logical_id in self._reverted and isinstance(value, str) and self._current[logical_id].name.lower() in value.lower()

    def export(self, name: str) -> Json:
        """Return an exported value, unless there is none."""
        try:
            return read_export(self._state, name)
        except ServiceError:
            return Unknown(frozenset((f"Fn::ImportValue {name}",)))


class Plan:
    """What bringing a stack to a blueprint would do; with *compared*, also in which resources drift would be reverted.

    Attributes:
        changes: ResourceChange documents by logical id, in the order in which they would be begun; removals last.
        outputs_change: Whether the outputs would differ.
    """

    def __init__(
        self,
        state: State,
        blueprint: Blueprint,
        members: list[Member],
        old_parameters: Mapping[str, ParameterValue],
        old_outputs: list[dict[str, str]],
        compared: Mapping[str, Comparison | None] | None = None,
    ) -> None:
        self._compared = compared
        self._now = datetime.now(UTC)
        self._blueprint = blueprint
        self._changed_parameters = {
            name for name, value in blueprint.parameters.items() if name not in old_parameters or old_parameters[name].value != value.value
        }
        current = {member.logical_id: member.current for member in members if member.current is not None}
        self.changes: dict[str, dict[str, Json]] = {}
        reverted: set[str] = set()
        live = _PlannedLive(state, current, self.changes, reverted)
        for name, wanted in blueprint.resources.items():
            properties = blueprint.properties(name, live)
            change: dict[str, Json] | None = {"Action": "Add", "Details": [], "Scope": [], "AfterContext": _context(properties)}
            if name in current:
                found = (compared or {}).get(name)
                if found is None or found.actual is not None:
                    change = self._modification(name, current[name], properties, blueprint.metadata(name, live))
                named = wanted.provider.name.property
                renamed = named is not None and properties.get(named) != current[name].properties.get(named)
                if (
                    found is not None
                    and found.drifted
                    and not renamed
                    and (change is None or change.get("Replacement", "False") == "False")
                ):
                    reverted.add(name)
                if change is not None:
                    change |= self._drift_of(name, current[name])
            if change is not None:
                self.changes[name] = {**change, "LogicalResourceId": name, "ResourceType": wanted.resource.type}
        for name, instance in sorted(current.items()):
            if name not in blueprint.resources:
                self.changes[name] = {
                    "Action": "Remove",
                    "PolicyAction": "Retain" if instance.deletion_policy in (Policy.RETAIN, Policy.RETAIN_EXCEPT_ON_CREATE) else "Delete",
                    "LogicalResourceId": name,
                    "PhysicalResourceId": instance.physical_id,
                    "ResourceType": instance.type,
                    "Details": [],
                    "Scope": [],
                    "BeforeContext": _context(instance.properties),
                }
        outputs = blueprint.evaluated_outputs(live)
        self.outputs_change = _without_description(outputs) != _without_description(old_outputs)

    def __bool__(self) -> bool:
        return bool(self.changes) or self.outputs_change

    def _modification(self, name: str, instance: Instance, new: Properties, metadata: Json) -> dict[str, Json] | None:
        wanted = self._blueprint.resources[name]
        provider = wanted.provider
        found = (self._compared or {}).get(name)
        old = instance.properties if found is None or found.actual is None else found.actual
        details: list[dict[str, Json]] = []
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) == new.get(key):
                continue
            always = key in provider.replaced_by or (is_known(new) and provider.replaces(old, new))
            is_tags = key == "Tags" and provider.tags is not None
            target: dict[str, Json] = {"Attribute": "Tags"} if is_tags else {"Attribute": "Properties", "Name": key}
            target["RequiresRecreation"] = "Always" if always else "Never"
            target |= {
                "Path": f"/Properties/{key}",
                "AttributeChangeType": "Add" if key not in old else "Remove" if key not in new else "Modify",
            }
            target |= {"BeforeValue": _text(old[key])} if key in old else {}
            target |= {"AfterValue": _text(new[key])} if key in new else {}
            if found is not None:
                target |= {"BeforeValueFrom": "ACTUAL_STATE", "AfterValueFrom": "TEMPLATE"}
            if old.get(key) != instance.properties.get(key):
                values = (("PreviousValue", instance.properties), ("ActualValue", old))
                target["Drift"] = {shown: _text(properties[key]) for shown, properties in values if key in properties}
                target["Drift"]["DriftDetectionTimestamp"] = self._now
            details += self._details(name, key, target, new.get(key))
        if metadata != instance.metadata and is_known(metadata):
            details.append(_detail({"Attribute": "Metadata", "RequiresRecreation": "Never"}, "Static", "DirectModification"))
        for attribute, before, after in (
            ("DeletionPolicy", instance.deletion_policy, wanted.deletion_policy),
            ("UpdateReplacePolicy", instance.update_replace_policy, wanted.update_replace_policy),
        ):
            if before != after:
                details.append(_detail({"Attribute": attribute, "RequiresRecreation": "Never"}, "Static", "DirectModification"))
        if provider.always_updated and not details:
            details.append(_detail({"Attribute": "Properties", "RequiresRecreation": "Never"}, "Dynamic", "Automatic"))
        if not details:
            return None
        recreating = [detail["Evaluation"] for detail in details if detail["Target"]["RequiresRecreation"] == "Always"]
        replacement = "True" if "Static" in recreating else "Conditional" if recreating else "False"
        change = {
            "Action": "Modify",
            "PhysicalResourceId": instance.physical_id,
            "Replacement": replacement,
            "Scope": sorted({detail["Target"]["Attribute"] for detail in details}),
            "Details": details,
            "BeforeContext": _context(old),
            "AfterContext": _context(new),
        }
        if replacement != "False":
            change["PolicyAction"] = "ReplaceAndRetain" if wanted.update_replace_policy is Policy.RETAIN else "ReplaceAndDelete"
        return change

    def _drift_of(self, name: str, instance: Instance) -> dict[str, Json]:
        """Return what a change set that reverts drift says of a resource's; nothing where another one is made."""
        if self._compared is None:
            return {}
        found = self._compared.get(name)
        if found is None:
            return {"ResourceDriftStatus": "UNSUPPORTED"}
        status = "DELETED" if found.actual is None else "MODIFIED" if found.drifted else "IN_SYNC"
        return {"ResourceDriftStatus": status, "PreviousDeploymentContext": _context(instance.properties)}

    def _details(self, name: str, key: str, target: dict[str, Json], value: Json) -> Iterator[dict[str, Json]]:
        found: list[dict[str, Json]] = []
        expression = self._blueprint.active[name].properties.get(key)
        scope = self._blueprint.scope(NothingYet())
        for parameter in sorted({item.name for item in references(expression, scope)} & self._changed_parameters):
            found.append(_detail(target, "Static", "ParameterReference", parameter))
        for cause in sorted(causes(value)):
            logical_id, dot, _ = cause.partition(".")
            if cause.startswith("Fn::"):
                continue
            # A resource that is sure to be made anew is sure to have another id; what an attribute will be is never sure.
            sure = not dot and self.changes.get(logical_id, {}).get("Replacement", "True") == "True"
            found.append(_detail(target, "Static" if sure else "Dynamic", "ResourceAttribute" if dot else "ResourceReference", cause))
        yield from found
        yield _detail(target, "Dynamic" if found else "Static", "DirectModification")


def _detail(target: dict[str, Json], evaluation: str, source: str, cause: str | None = None) -> dict[str, Json]:
    detail = {"Target": target, "Evaluation": evaluation, "ChangeSource": source}
    return detail if cause is None else {**detail, "CausingEntity": cause}


def _shown(value: Json) -> Json:
    if isinstance(value, Unknown):
        return _KNOWN_LATER
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _text(value: Json) -> str:
    shown = _shown(value)
    return shown if isinstance(shown, str) else json.dumps(shown)


def _context(properties: Properties) -> str:
    return json.dumps({"Properties": _shown(properties)})


def _without_description(outputs: list[dict[str, str]]) -> list[tuple[str, str, str | None]]:
    return [(output["OutputKey"], output["OutputValue"], output.get("ExportName")) for output in outputs]
