"""Statuses and events: what DescribeStacks and DescribeStackEvents show."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from localcloud.cloudformation.provider import Properties
from localcloud.cloudformation.state import Instance, Member, State
from localcloud.database import Document

STACK_TYPE = "AWS::CloudFormation::Stack"


class Recorder:
    """Writes statuses, each with its event.

    Args:
        state: Where to.
        publish: Told of every event (stack, event) after it is written; must not block.
    """

    def __init__(self, state: State, publish: Callable[[Document, Document], None]) -> None:
        self._state = state
        self._publish = publish

    def stack(self, stack_id: str, status: str, reason: str | None = None) -> Document:
        """Set a stack's status and return the stack."""
        stack = self._state.update_stack(stack_id, StackStatus=status, StackStatusReason=reason)
        self._event(stack, stack["StackName"], stack_id, STACK_TYPE, status, reason, None)
        return stack

    def member(self, member: Member, status: str, reason: str | None = None, properties: Properties | None = None) -> None:
        """Set a member's status; its document, with whatever else changed in it, is written."""
        shown = member.current or member.before
        member.status, member.reason, member.timestamp = status, reason, datetime.now(UTC)
        member.physical_id = shown.physical_id if shown else member.physical_id
        self._state.put_member(member)
        self._event(self._stack(member), member.logical_id, member.physical_id, member.type, status, reason, properties)

    def garbage(self, member: Member, instance: Instance, status: str, reason: str | None = None) -> None:
        """Record what happens to an instance that a member no longer has; it is the member's status only when there is no other instance."""
        if member.current is None:
            member.status, member.reason, member.timestamp = status, reason, datetime.now(UTC)
            member.physical_id = instance.physical_id
        self._state.put_member(member)
        self._event(self._stack(member), member.logical_id, instance.physical_id, member.type, status, reason, instance.properties)

    def _stack(self, member: Member) -> Document:
        stack = self._state.stack(member.stack_id)
        assert stack is not None
        return stack

    def _event(
        self,
        stack: Document,
        logical_id: str,
        physical_id: str | None,
        type_name: str,
        status: str,
        reason: str | None,
        properties: Properties | None,
    ) -> None:
        event: dict[str, Any] = {
            "LogicalResourceId": logical_id,
            "PhysicalResourceId": physical_id or "",
            "ResourceType": type_name,
            "ResourceStatus": status,
        }
        if reason:
            event["ResourceStatusReason"] = reason
        if properties is not None:
            event["ResourceProperties"] = json.dumps(properties)
        self._publish(stack, self._state.add_event(stack, **event))
