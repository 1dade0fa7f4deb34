"""One resource of a stack: made, changed, put back, deleted; each step written down before and after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.cloudformation.blueprint import Blueprint, Policy, Registry
from localcloud.cloudformation.comparison import Compare
from localcloud.cloudformation.dynamic import resolve_dynamic
from localcloud.cloudformation.errors import Cancelled, ResourceFailure, Stopping, already_exists, failure_of, handler_failure
from localcloud.cloudformation.imports import owner_of
from localcloud.cloudformation.live import StackLive
from localcloud.cloudformation.provider import Context, Place, Properties, Provider, generated_name
from localcloud.cloudformation.recorder import Recorder
from localcloud.cloudformation.schedule import Operation
from localcloud.cloudformation.schema import PropertyError, convert
from localcloud.cloudformation.state import Instance, Member, State
from localcloud.database import Document
from localcloud.errors import ServiceError

log = logging.getLogger(__name__)


class Resources:
    """Works on single resources of the stack of one operation."""

    def __init__(
        self,
        operation: Operation,
        state: State,
        recorder: Recorder,
        registry: Registry,
        clients: Callable[[str], Any],
        place: Place,
        compare: Compare,
    ) -> None:
        self._operation = operation
        self._state = state
        self._record = recorder
        self._registry = registry
        self._clients = clients
        self._place = place
        self._compare = compare
        self._live = StackLive(state, operation)

    # --- forward ------------------------------------------------------------------------------------------------------------------------------

    def add(self, blueprint: Blueprint, name: str) -> None:
        """Make a resource that the stack has not.

        Raises:
            ResourceFailure: It could not be made; the member says why.
            Cancelled: The operation was ended.
        """
        wanted = blueprint.resources[name]
        present = self._state.member(self._operation.stack_id, name)
        member = Member(self._operation.stack_id, name, wanted.resource.type, "CREATE_IN_PROGRESS", datetime.now(UTC), touched=True)
        member.garbage = present.garbage if present is not None else []
        try:
            instance = self._wanted(blueprint, name)
            self._record.member(member, "CREATE_IN_PROGRESS", properties=instance.properties)
            self._make(member, wanted.provider, instance, "CREATE")
        except (ResourceFailure, Cancelled, ServiceError) as error:
            self._record.member(member, "CREATE_FAILED", "Resource creation cancelled" if isinstance(error, Cancelled) else _reason(error))
            raise
        self._record.member(member, "CREATE_COMPLETE", properties=instance.properties)

    def take(self, blueprint: Blueprint, name: str, identifier: str) -> None:
        """Take a resource that is there already into the stack, as it is.

        Args:
            blueprint: The stack's template with its parameters.
            name: The logical id.
            identifier: The physical id that the resource must have.

        Raises:
            ResourceFailure: It is not there, or is another than the template names; the member says so.
            Cancelled: The operation was ended.
        """
        provider = blueprint.resources[name].provider
        member = Member(self._operation.stack_id, name, provider.type, "IMPORT_IN_PROGRESS", datetime.now(UTC), physical_id=identifier)
        try:
            instance = self._wanted(blueprint, name)
            instance.physical_id = identifier
            self._record.member(member, "IMPORT_IN_PROGRESS", properties=instance.properties)
            context, properties = self._context(name), self._resolved(provider, instance.properties)
            if self._call(provider, provider.identify, context, instance.name, properties) != identifier:
                raise handler_failure(f"The template names {instance.name}, which is not {identifier}.", "InvalidRequest")
            owner = owner_of(provider.type, identifier, self._state)
            if owner is not None:
                raise handler_failure(f"{identifier} already belongs to the stack {owner}.", "AlreadyExists")
            if not self._call(provider, provider.exists, context, instance.name, properties):
                raise handler_failure(f"Resource of type '{provider.type}' with identifier '{identifier}' was not found.", "NotFound")
            instance.attributes = self._call(provider, provider.attributes_of, context, identifier, properties)
        except (ResourceFailure, Cancelled, ServiceError) as error:
            self._record.member(member, "IMPORT_FAILED", _reason(error))
            raise
        instance.made, member.current = True, instance
        self._record.member(member, "IMPORT_COMPLETE", properties=instance.properties)

    def change(self, blueprint: Blueprint, name: str) -> None:
        """Bring a resource to what the blueprint wants: nothing, an update in place, a replacement, or a new resource.

        Where the update reverts drift, from what it really is.

        Raises:
            ResourceFailure: It could not be done; the member says why.
            Cancelled: The operation was ended.
        """
        member = self._state.member(self._operation.stack_id, name)
        if member is None or member.current is None:
            return self.add(blueprint, name)
        old, provider = member.current, blueprint.resources[name].provider
        try:
            if self._stack.get("RevertDrift"):
                found = self._call(provider, self._compare, self._clients, self._state.members(member.stack_id), member)
                if found is not None and found.actual is None:
                    return self._make_again(blueprint, member, provider, old)
                if found is not None and found.drifted:
                    old = replace(old, actual=found.actual)
            new = self._wanted(blueprint, name, like=old)
            really = old.really
            differing = {key for key in really.keys() | new.properties.keys() if really.get(key) != new.properties.get(key)}
            if not differing and not provider.always_updated:
                if new != old:
                    # Only what the engine itself keeps: metadata, policies, dependencies.
                    member.before, member.touched, member.current = old, True, new
                    self._state.put_member(member)
                return None
            member.before, member.touched = old, True
            if differing & provider.replaced_by or provider.replaces(really, new.properties):
                self._replace(member, provider, old, new)
            else:
                member.current = new
                self._record.member(member, "UPDATE_IN_PROGRESS", properties=new.properties)
                self._update_in_place(provider, self._context(name), really, new, new.properties)
        except (ResourceFailure, Cancelled, ServiceError) as error:
            self._record.member(member, "UPDATE_FAILED", "Resource update cancelled" if isinstance(error, Cancelled) else _reason(error))
            raise
        self._record.member(member, "UPDATE_COMPLETE", properties=new.properties)
        return None

    def _make_again(self, blueprint: Blueprint, member: Member, provider: Provider, old: Instance) -> None:
        """Make a resource that is gone again, under its old name unless the template has another."""
        new = self._wanted(blueprint, member.logical_id, like=old)
        chosen = new.properties.get(provider.name.property) if provider.name.property else None
        new = replace(new, name=str(chosen or old.name), physical_id=None, made=False, attributes={}, recreated=True)
        member.before, member.touched = old, True
        reason = "The resource was deleted outside of CloudFormation; hence creating it again."
        self._record.member(member, "UPDATE_IN_PROGRESS", reason, new.properties)
        self._make(member, provider, new, "UPDATE")
        self._record.member(member, "UPDATE_COMPLETE", properties=new.properties)

    def _replace(self, member: Member, provider: Provider, old: Instance, new: Instance) -> None:
        reason = "Requested update requires the creation of a new physical resource; hence creating one."
        self._record.member(member, "UPDATE_IN_PROGRESS", reason, new.properties)
        rule = provider.name
        chosen = new.properties.get(rule.property) if rule.property and rule.unique else None
        if chosen and chosen == old.properties.get(str(rule.property)):
            raise ResourceFailure(
                f"CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename {chosen} and update the stack again."
            )
        name = self._name(member.logical_id, provider, new.properties)
        self._make(member, provider, replace(new, name=name, physical_id=None, made=False, attributes={}), "UPDATE")

    def _make(self, member: Member, provider: Provider, instance: Instance, verb: str) -> None:
        context = self._context(member.logical_id)
        properties = self._resolved(provider, instance.properties)
        if (
            provider.name.property
            and properties.get(provider.name.property)
            and self._call(provider, provider.exists, context, instance.name, properties)
        ):
            raise already_exists(provider.type, instance.name)
        unmade = member.current
        # Written before the call: should the process end in it, the next one knows what may be there.
        member.current = instance
        self._state.put_member(member)
        try:
            physical_id: str = self._call(provider, provider.create, context, instance.name, properties)
        except (ResourceFailure, Cancelled):
            # Nothing was made, so that there is nothing to undo.
            member.current = unmade
            self._state.put_member(member)
            raise
        instance.physical_id, instance.made = physical_id, True
        self._record.member(member, f"{verb}_IN_PROGRESS", "Resource creation Initiated", instance.properties)
        self._call(provider, provider.settle, context, physical_id, properties)
        instance.attributes = self._call(provider, provider.attributes_of, context, physical_id, properties)

    def _update_in_place(self, provider: Provider, context: Context, old: Properties, new: Instance, wanted: Properties) -> None:
        # What somebody made by hand need not be what a template may say.
        properties = self._resolved(provider, wanted, strict=new.actual is None)
        moved = self._call(provider, provider.update, context, new.physical_id, self._resolved(provider, old, strict=False), properties)
        new.physical_id = moved or new.physical_id
        new.attributes = self._call(provider, provider.attributes_of, context, new.physical_id, properties)

    # --- back ---------------------------------------------------------------------------------------------------------------------------------

    def restore(self, member: Member) -> None:
        """Put a resource back to what it was before the update. The member keeps both states until `settle_restored`, so that it can be repeated.

        Raises:
            ResourceFailure: It could not be done; the member says why.
        """
        before, current = member.before, member.current
        assert before is not None
        provider = self._provider(before.type)
        if current is None or not same_physical(before, current) or (current.properties == before.really and not provider.always_updated):
            if member.status != "UPDATE_COMPLETE" or (current is not None and not same_physical(before, current)):
                self._record.member(member, "UPDATE_COMPLETE")
            return
        self._record.member(member, "UPDATE_IN_PROGRESS", properties=before.really)
        restored = replace(before)
        try:
            context = replace(self._context(member.logical_id, cancellable=False), restored=before.attributes)
            self._update_in_place(provider, context, current.properties, restored, before.really)
        except ResourceFailure as error:
            self._record.member(member, "UPDATE_FAILED", str(error))
            raise
        member.before = restored
        self._record.member(member, "UPDATE_COMPLETE", properties=before.really)

    def settle_restored(self, member: Member, stack: Document) -> None:
        """End a restore, once it is durable: the resource is what it was before, and what the update had made in its place is garbage."""
        assert member.before is not None
        if member.current is not None and not same_physical(member.before, member.current):
            member.garbage.append(for_rollback(member.current, stack))
        member.current, member.before, member.touched = replace(member.before, actual=None), None, False
        member.physical_id = member.current.physical_id
        self._state.put_member(member)

    # --- away ---------------------------------------------------------------------------------------------------------------------------------

    def delete_garbage(self, member: Member, stack: Document) -> None:
        """Delete what a member has as garbage, as its policies say.

        Raises:
            ResourceFailure: Something could not be deleted; the events say what and why.
        """
        deleting = stack["StackStatus"] == "DELETE_IN_PROGRESS"
        retained = deleting and member.logical_id in (stack.get("RetainResources") or ())
        for instance in member.garbage:
            if retained or instance.deletion_policy in (Policy.RETAIN, Policy.RETAIN_EXCEPT_ON_CREATE):
                self._record.garbage(member, instance, "DELETE_SKIPPED")
                continue
            try:
                self._delete(member, instance)
            except ResourceFailure as error:
                if not (deleting and stack.get("DeletionMode") == "FORCE_DELETE_STACK"):
                    self._record.garbage(member, instance, "DELETE_FAILED", str(error))
                    raise
                self._record.garbage(member, instance, "DELETE_SKIPPED", str(error))
        if not member.garbage and member.current is None and member.status != "DELETE_COMPLETE":
            # It was never made.
            self._record.member(member, "DELETE_COMPLETE")

    def _delete(self, member: Member, instance: Instance) -> None:
        provider = self._provider(instance.type)
        context = self._context(member.logical_id, cancellable=False)
        properties = self._resolved(provider, instance.properties, strict=False)
        if not instance.made and instance.physical_id is None:
            # The process ended while it was being created: it may be there.
            instance.physical_id = self._call(provider, provider.identify, context, instance.name, properties)
        if instance.physical_id is not None:
            self._record.garbage(member, instance, "DELETE_IN_PROGRESS")
            try:
                self._call(provider, provider.delete, context, instance.physical_id, properties)
            except ResourceFailure as error:
                if not error.not_found:
                    raise
        instance.deleted = True
        self._record.garbage(member, instance, "DELETE_COMPLETE")

    # --- help ---------------------------------------------------------------------------------------------------------------------------------

    def _wanted(self, blueprint: Blueprint, name: str, like: Instance | None = None) -> Instance:
        """Return what a resource is to be, evaluated with what is there now; with the identity of *like*, or a new one."""
        wanted = blueprint.resources[name]
        properties = blueprint.properties(name, self._live)
        instance = Instance(
            wanted.resource.type,
            like.name if like else self._name(name, wanted.provider, properties),
            properties,
            dependencies=sorted(wanted.dependencies),
            deletion_policy=wanted.deletion_policy,
            update_replace_policy=wanted.update_replace_policy,
            metadata=blueprint.metadata(name, self._live),
        )
        if like is not None:
            instance.physical_id, instance.made, instance.attributes = like.physical_id, like.made, dict(like.attributes)
        return instance

    def _name(self, logical_id: str, provider: Provider, properties: Properties) -> str:
        chosen = properties.get(provider.name.property) if provider.name.property else None
        if chosen:
            return str(chosen)
        return generated_name(self._stack["StackName"], logical_id, provider.name, provider.name_suffix(properties))

    @property
    def _stack(self) -> Document:
        stack = self._state.stack(self._operation.stack_id)
        assert stack is not None
        return stack

    def _context(self, logical_id: str, *, cancellable: bool = True) -> Context:
        stack = self._stack
        return Context(
            self._clients,
            self._place,
            stack["StackId"],
            stack["StackName"],
            logical_id,
            stack["Tags"],
            self._operation.cancel.is_set if cancellable else lambda: False,
            self._operation.stopping.is_set,
        )

    def _provider(self, type_name: str) -> Provider:
        provider = self._registry(type_name)
        if provider is None:
            raise ResourceFailure(f"The resource type {type_name} is not supported by localcloud")
        return provider

    def _resolved(self, provider: Provider, properties: Properties, *, strict: bool = True) -> Properties:
        """Return properties with their dynamic references looked up; unless *strict*, as they are when that is not possible (any more)."""
        try:
            resolved = resolve_dynamic(properties, self._clients)
            converted: Properties = convert(resolved, provider.schema)
            if strict:
                provider.validate(converted)
        except ResourceFailure:
            if strict:
                raise
            return properties
        except PropertyError as error:
            if strict:
                raise ResourceFailure(f"Properties validation failed with message:\n#{error.path}: {error}") from error
            return properties
        return converted

    def _call(self, provider: Provider, method: Callable[..., Any], *arguments: Any) -> Any:
        if self._operation.stopping.is_set():
            raise Stopping
        try:
            return method(*arguments)
        except (ClientError, BotoCoreError) as error:
            if self._operation.stopping.is_set():
                raise Stopping from error
            raise failure_of(error, provider.type.split("::")[1]) from error
        except (ResourceFailure, Cancelled, Stopping):
            raise
        except Exception as error:  # a provider's fault fails its resource, and the stack is rolled back
            log.exception("%s failed inside localcloud", provider.type)
            raise ResourceFailure(f"Internal Failure ({type(error).__name__}: {error}); localcloud's log has the traceback") from error


def same_physical(before: Instance, current: Instance) -> bool:
    """Return whether two instances are the same physical resource."""
    return before.physical_id == current.physical_id and before.name == current.name and not current.recreated


def for_rollback(instance: Instance, stack: Document) -> Instance:
    """Return an instance with the policy that counts when the operation that made it is rolled back."""
    if instance.deletion_policy == Policy.RETAIN and not stack.get("RetainExceptOnCreate"):
        return instance
    return replace(instance, deletion_policy=Policy.DELETE)


def _reason(error: Exception) -> str:
    return str(error.message) if isinstance(error, ServiceError) else str(error)
