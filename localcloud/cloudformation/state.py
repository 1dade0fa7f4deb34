"""What the engine remembers of stacks: documents in the region's database, written before and after each step."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from localcloud.cloudformation.blueprint import Policy
from localcloud.database import Database, Document

Json = Any


@dataclass
class Instance:
    """One physical resource.

    Attributes:
        type: Its resource type.
        name: The name with which it is created.
        physical_id: What Ref gives; None until it is known.
        made: Whether creating it is known to have happened. False with a `name`: it may have (a crash came between).
        properties: Evaluated properties; dynamic references as written.
        attributes: Values for Fn::GetAtt.
        dependencies: Logical ids that it refers to: they are deleted after it.
        deletion_policy: DeletionPolicy.
        update_replace_policy: UpdateReplacePolicy.
        metadata: Evaluated Metadata.
        deleted: Deleted in the operation that is under way; forgotten when that ends.
        actual: In an update that reverts drift: what the properties really were when it began, where that differs; its rollback goes back there.
        recreated: Made by the update that is under way in the place of one that was gone, perhaps with the same physical id.
    """

    type: str
    name: str
    properties: dict[str, Json]
    physical_id: str | None = None
    made: bool = False
    attributes: dict[str, Json] = field(default_factory=dict)
    dependencies: list[str] = field(default_factory=list)
    deletion_policy: str = Policy.DELETE
    update_replace_policy: str = Policy.DELETE
    metadata: Json = None
    deleted: bool = False
    actual: dict[str, Json] | None = None
    recreated: bool = False

    @property
    def really(self) -> dict[str, Json]:
        """The properties as they are known to be."""
        return self.properties if self.actual is None else self.actual


@dataclass
class Member:
    """One logical resource of a stack.

    Attributes:
        stack_id: The stack.
        logical_id: The name in the template.
        type: Resource type.
        status: ResourceStatus.
        reason: ResourceStatusReason.
        timestamp: When the status changed.
        current: The physical resource that the stack has; None: none.
        before: What `current` was before the update that is under way touched it.
        touched: The update that is under way has made or changed it.
        garbage: Physical resources that are to be deleted when the operation ends.
        physical_id: The physical id to show, also after the resource is gone.
    """

    stack_id: str
    logical_id: str
    type: str
    status: str
    timestamp: datetime
    reason: str | None = None
    current: Instance | None = None
    before: Instance | None = None
    touched: bool = False
    garbage: list[Instance] = field(default_factory=list)
    physical_id: str | None = None

    def document(self) -> Document:
        """Return it as a JSON document, which shares the instances' members with it."""
        instances = {"current": self.current and vars(self.current), "before": self.before and vars(self.before)}
        return {**vars(self), **instances, "garbage": [vars(instance) for instance in self.garbage]}

    @classmethod
    def of(cls, document: Document) -> Member:
        """Return the member that `document` made."""
        instances = {key: Instance(**document[key]) if document[key] else None for key in ("current", "before")}
        return cls(**{**document, **instances, "garbage": [Instance(**item) for item in document["garbage"]]})


class State:
    """Stacks, their members, their events and their change sets."""

    def __init__(self, database: Database) -> None:
        self.lock = threading.RLock()
        self._stacks = database.table("cloudformation.stacks")
        self._members = database.table("cloudformation.members")
        self._events = database.table("cloudformation.events")
        self.change_sets = database.table("cloudformation.change_sets")
        self._stack_cache: dict[str, Document] = {}
        self._member_cache: dict[str, dict[str, Member]] = {}
        self._event_cache: dict[str, list[Document]] = {}
        for document in self._stacks.values():
            self._stack_cache[document["StackId"]] = document
        for document in self._members.values():
            member = Member.of(document)
            self._member_cache.setdefault(member.stack_id, {})[member.logical_id] = member
        for document in self._events.values():
            self._event_cache.setdefault(document["StackId"], []).append(document)

    def stacks(self) -> list[Document]:
        """Return every stack, deleted ones included, newest first. Stack documents are never changed in place: use `update_stack`."""
        with self.lock:
            return sorted(self._stack_cache.values(), key=lambda stack: stack["CreationTime"], reverse=True)

    def stack(self, name_or_id: str) -> Document | None:
        """Return a stack by id, or one that is not deleted by name."""
        with self.lock:
            if name_or_id.startswith("arn:"):
                return self._stack_cache.get(name_or_id)
            return next(
                (s for s in self._stack_cache.values() if s["StackName"] == name_or_id and s["StackStatus"] != "DELETE_COMPLETE"), None
            )

    def put_stack(self, stack: Document) -> None:
        """Write a stack."""
        with self.lock:
            self._stacks.put(stack["StackId"], stack)
            self._stack_cache[stack["StackId"]] = stack

    def update_stack(self, stack_id: str, **changes: Any) -> Document:
        """Set fields of a stack and return it."""
        with self.lock:
            stack = {**self._stack_cache[stack_id], **changes}
            self.put_stack(stack)
            return stack

    def forget_stack(self, stack_id: str) -> None:
        """Remove a stack as if it had never been (one that no change set was executed for)."""
        with self.lock:
            for member in self.members(stack_id):
                self.forget_member(member)
            for index in range(len(self._event_cache.pop(stack_id, []))):
                self._events.delete(f"{stack_id}|{index:08d}")
            self._stacks.delete(stack_id)
            self._stack_cache.pop(stack_id, None)

    def members(self, stack_id: str) -> list[Member]:
        """Return a stack's members in the order of their logical ids. They are the state's own: write a change with `put_member`."""
        with self.lock:
            return [member for _, member in sorted(self._member_cache.get(stack_id, {}).items())]

    def member(self, stack_id: str, logical_id: str) -> Member | None:
        """Return one member."""
        return self._member_cache.get(stack_id, {}).get(logical_id)

    def put_member(self, member: Member) -> None:
        """Write a member."""
        with self.lock:
            self._members.put(f"{member.stack_id}|{member.logical_id}", member.document())
            self._member_cache.setdefault(member.stack_id, {})[member.logical_id] = member

    def forget_member(self, member: Member) -> None:
        """Remove a member."""
        with self.lock:
            self._members.delete(f"{member.stack_id}|{member.logical_id}")
            self._member_cache.get(member.stack_id, {}).pop(member.logical_id, None)

    def add_event(self, stack: Document, **event: Any) -> Document:
        """Append an event (ResourceStatus and so on) to a stack's history and return it."""
        stack_id = stack["StackId"]
        with self.lock:
            now = datetime.now(UTC)
            document = {"StackId": stack_id, "StackName": stack["StackName"], "Timestamp": now, **event}
            if stack.get("ClientRequestToken"):
                document["ClientRequestToken"] = stack["ClientRequestToken"]
            if event["PhysicalResourceId"] == stack_id:
                document["EventId"] = str(uuid.uuid4())
            else:
                # Microseconds where AWS has milliseconds: here a resource may have two events within one.
                stamp = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
                document["EventId"] = f"{event['LogicalResourceId']}-{event['ResourceStatus']}-{stamp}"
            events = self._event_cache.setdefault(stack_id, [])
            self._events.put(f"{stack_id}|{len(events):08d}", document)
            events.append(document)
        return document

    def events(self, stack_id: str) -> list[Document]:
        """Return a stack's events, oldest first."""
        with self.lock:
            return list(self._event_cache.get(stack_id, []))

    def exports(self) -> Iterator[tuple[str, Json, Document]]:
        """Yield name, value and stack of every export."""
        for stack in self.stacks():
            if stack["StackStatus"] != "DELETE_COMPLETE":
                for output in stack.get("Outputs", []):
                    if "ExportName" in output:
                        yield output["ExportName"], output["OutputValue"], stack
