"""What templates see while an operation works on a stack: the physical ids and attributes that there are, and other stacks' exports."""

from __future__ import annotations

from typing import Any

from localcloud.cloudformation.blueprint import NothingYet
from localcloud.cloudformation.errors import validation_error
from localcloud.cloudformation.schedule import Operation
from localcloud.cloudformation.state import Instance, State

Json = Any


def read_export(state: State, name: str) -> Json:
    """Return an exported value.

    Raises:
        ServiceError: There is none of that name.
    """
    for export, value, _ in state.exports():
        if export == name:
            return value
    raise validation_error(f"No export named {name} found")


class StackLive:
    """The stack's resources as they are now."""

    def __init__(self, state: State, operation: Operation) -> None:
        self._state = state
        self._operation = operation

    def ref(self, logical_id: str) -> Json:
        """Return the physical id of a resource."""
        return self._instance(logical_id).physical_id

    def attribute(self, logical_id: str, name: str) -> Json:
        """Return an attribute of a resource.

        Raises:
            ServiceError: It has none of that name.
        """
        attributes = self._instance(logical_id).attributes
        if name not in attributes:
            raise validation_error(f"Template error: resource {logical_id} does not support attribute type {name} in Fn::GetAtt")
        return attributes[name]

    def export(self, name: str) -> Json:
        """Return an exported value, and note in the stack that it is imported."""
        value = read_export(self._state, name)
        operation, state = self._operation, self._state
        with state.lock:
            if name not in operation.imports:
                operation.imports.add(name)
                stack = state.stack(operation.stack_id)
                assert stack is not None
                state.update_stack(operation.stack_id, Imports=sorted({*(stack.get("Imports") or []), name}))
        return value

    def _instance(self, logical_id: str) -> Instance:
        member = self._state.member(self._operation.stack_id, logical_id)
        if member is None or member.current is None:
            raise validation_error(
                f"Template format error: Unresolved resource dependencies [{logical_id}] in the Resources block of the template"
            )
        return member.current


class BeforeLive(StackLive):
    """The world before an operation has done anything: exports can be read, the stack's own resources cannot."""

    def ref(self, logical_id: str) -> Json:
        """Return `Unknown`."""
        return NothingYet().ref(logical_id)

    def attribute(self, logical_id: str, name: str) -> Json:
        """Return `Unknown`."""
        return NothingYet().attribute(logical_id, name)
