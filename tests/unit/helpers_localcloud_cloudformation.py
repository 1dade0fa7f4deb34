"""A world of boxes for the stack engine: resources in a dictionary, and a process that can be killed at any moment."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from localcloud.cloudformation.comparison import Comparison
from localcloud.cloudformation.engine import Engine
from localcloud.cloudformation.errors import ResourceFailure
from localcloud.cloudformation.provider import Context, NameRule, Place, Properties, Provider, TagStyle
from localcloud.cloudformation.schema import INTEGER, JSON, STRING, STRINGS, TAG_LIST, Object
from localcloud.cloudformation.state import Member, State
from localcloud.cloudformation.target import Templates
from localcloud.database import Database, Document

Json = Any


class Killed(BaseException):
    """Indicates that the simulated process is dead: nothing that it still does has an effect."""


class World:
    """What exists outside of CloudFormation. Changes reach the disk only when it is flushed (or by luck), as moto's state does."""

    def __init__(self) -> None:
        self.things: dict[str, Properties] = {}
        self._unsaved: list[dict[str, Properties]] = [{}]
        self.steps_left: int | None = None
        self.dead = False

    def step(self) -> None:
        """Count one moment at which the process may be killed."""
        if self.dead:
            raise Killed
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.dead = True
                raise Killed

    def change(self, do: Callable[[], None]) -> None:
        """Do something to the world; the process may be killed before and after."""
        self.step()
        do()
        self._unsaved.append(copy.deepcopy(self.things))
        self.step()

    def flush(self) -> None:
        """Make the present state durable."""
        self.step()
        self._unsaved = [copy.deepcopy(self.things)]

    def restart(self, luck: int) -> None:
        """Start a new process: *luck* says how many of the unflushed changes had reached the disk."""
        survivors = self._unsaved[luck % len(self._unsaved)]
        self.things = copy.deepcopy(survivors)
        self._unsaved = [survivors]
        self.steps_left, self.dead = None, False

    def users_of(self, physical_id: str) -> list[str]:
        """Return what refers to a thing."""
        return [name for name, properties in self.things.items() if physical_id in properties.get("Links", ())]


class Box(Provider):
    """A resource that may refer to others (Links), and fails when it is told to (Fail: create, settle, update)."""

    type: ClassVar[str] = "Test::Box"
    schema: ClassVar[Object] = Object(
        {
            "Content": JSON,
            "Fail": STRING,
            "Kind": STRING,
            "Links": STRINGS,
            "Name": STRING,
            "Size": INTEGER,
            "Tags": TAG_LIST,
            "Nested": Object({"Inner": INTEGER}, required=("Inner",)),
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Kind", "Name"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "Size"))
    name: ClassVar[NameRule] = NameRule("Name", 40)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def __init__(self, world: World) -> None:
        self.world = world
        self.undeletable: set[str] = set()
        self.unrestorable = False

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        return name in self.world.things

    def _check_links(self, properties: Properties) -> None:
        for link in properties.get("Links", ()):
            if link not in self.world.things:
                raise ResourceFailure(f"{link} does not exist")

    def create(self, context: Context, name: str, properties: Properties) -> str:
        if properties.get("Fail") == "create":
            raise ResourceFailure("told to fail")
        if name in self.world.things:
            raise ResourceFailure(f"{name} already exists")
        self._check_links(properties)
        self.world.change(lambda: self.world.things.__setitem__(name, {**properties, "Settled": False}))
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        if properties.get("Fail") == "settle":
            raise ResourceFailure("told to fail")
        self.world.change(lambda: self.world.things[physical_id].__setitem__("Settled", True))

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        return {"Arn": f"arn:box:{physical_id}", "Size": properties.get("Size", 0)}

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        if physical_id not in self.world.things:
            raise ResourceFailure(f"{physical_id} does not exist", not_found=True)
        self._check_links(new)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                if new.get("Fail") == "update" and key > "Fail":
                    # Half of the properties have been changed by now.
                    raise ResourceFailure("told to fail")
                if self.unrestorable and "Fail" in old:
                    raise ResourceFailure("told not to go back")
                self.world.change(lambda key=key: self._set(physical_id, key, new))  # type: ignore[misc]

    def _set(self, physical_id: str, key: str, new: Properties) -> None:
        thing = self.world.things[physical_id]
        if key in new:
            thing[key] = new[key]
        else:
            thing.pop(key, None)

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        if context.logical_id in self.undeletable:
            raise ResourceFailure("told not to go")
        if physical_id not in self.world.things:
            raise ResourceFailure(f"{physical_id} does not exist", not_found=True)
        users = self.world.users_of(physical_id)
        if users:
            raise ResourceFailure(f"{physical_id} is in use by {users}")
        self.world.change(lambda: self.world.things.__delitem__(physical_id))


class Nail(Box):
    """A box under a name rule of its own, which needs a capability."""

    type: ClassVar[str] = "Test::Nail"
    capability: ClassVar[str | None] = "CAPABILITY_IAM"


class MortalDatabase(Database):
    """A database whose process may be killed before and after each write."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path)
        # The machine does not crash here, only the process: nothing needs to be forced to the disk.
        self._connection.execute("PRAGMA synchronous=OFF")
        self._world = world

    def write(self, *arguments: Any, **named: Any) -> None:
        self._world.step()
        super().write(*arguments, **named)
        self._world.step()


class PausedEngine(Engine):
    """An engine whose operations run when they are told to, in the caller's thread."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.waiting: list[Callable[[], None]] = []

    def _launch(self, work: Callable[[], None], name: str) -> None:
        self.waiting.append(work)

    def work(self) -> None:
        """Run what was begun."""
        while self.waiting:
            self.waiting.pop(0)()


class Stacks:
    """One process that plays CloudFormation on a world of boxes; `restart` is the next one."""

    def __init__(self, folder: Path, world: World | None = None, *, workers: int = 1) -> None:
        self.folder = folder
        self.world = world or World()
        self.box, nail = Box(self.world), Nail(self.world)
        self.database = MortalDatabase(folder / "state.db", self.world)
        self.state = State(self.database)
        self.events: list[tuple[str, str]] = []
        place = Place()

        def registry(name: str) -> Provider | None:
            return {"Test::Box": self.box, "Test::Nail": nail}.get(name)

        def publish(stack: Document, event: Document) -> None:
            self.events.append((event["LogicalResourceId"], event["ResourceStatus"]))

        def no_client(service: str) -> Any:
            raise AssertionError(f"boxes need no {service}")

        def no_clients(stack: Document) -> Any:
            return no_client

        self.engine = PausedEngine(
            self.state, registry, no_clients, place, flush=self.world.flush, publish=publish, workers=workers, compare=self.compare
        )
        self.templates = Templates(registry, place, lambda bucket, key: None, lambda host, port: False, lambda name: None)

    def restart(self, luck: int = 0) -> Stacks:
        """Return the next process on the same disk, before it has taken up anything."""
        self.database.close()
        self.world.restart(luck)
        return Stacks(self.folder, self.world)

    def id(self, name: str) -> str:
        return f"arn:aws:cloudformation:us-east-1:123456789012:stack/{name}/1"

    def create(self, template: Json, name: str = "s", **fields: Json) -> Document:
        """Create a stack and return it when that has ended."""
        new = {"StackId": self.id(name), "StackName": name}
        target = self.templates.target(_request(template, fields), new)
        document = {**new, "StackStatus": "REVIEW_IN_PROGRESS", "CreationTime": _now(), "OnFailure": "ROLLBACK", **fields, **target.fields}
        with self.state.lock:
            self.engine.begin_create(document, target.blueprint)
        self.engine.work()
        return self.stack(name)

    def take(self, template: Json, identifiers: dict[str, str], name: str = "s") -> Document:
        """Import resources into a new stack and return it when that has ended."""
        new = {"StackId": self.id(name), "StackName": name}
        target = self.templates.target(_request(template, {}), new)
        document = {**new, "StackStatus": "REVIEW_IN_PROGRESS", "CreationTime": _now(), "Importing": identifiers, **target.fields}
        with self.state.lock:
            self.engine.begin_import(document, target.blueprint)
        self.engine.work()
        return self.stack(name)

    def update(self, template: Json, name: str = "s", **fields: Json) -> Document:
        """Update a stack and return it when that has ended."""
        stack = self.stack(name)
        target = self.templates.target(_request(template, fields), stack)
        with self.state.lock:
            more = {key: fields.get(key) for key in ("KeepFailedUpdate", "RevertDrift")}
            self.engine.begin_update(stack["StackId"], target.fields, target.blueprint, **more)
        self.engine.work()
        return self.stack(name)

    def compare(self, clients: Any, members: Iterable[Member], member: Member) -> Comparison:
        """Compare a box with what is in the world."""
        assert member.current is not None
        expected, thing = member.current.properties, self.world.things.get(str(member.current.physical_id))
        if thing is None:
            return Comparison(expected, None, None)
        real = {key: value for key, value in thing.items() if key in expected}
        return Comparison(expected, real, real)

    def begin(self, status: str, name: str = "s", **run: Any) -> Document:
        """Put a stack into a status in progress, and return it when what that means has ended."""
        self.engine.recorder.stack(self.stack(name)["StackId"], status, "User Initiated")
        self.engine.run(self.stack(name)["StackId"], **run)
        self.engine.work()
        return self.stack(name)

    def delete(self, name: str = "s") -> Document:
        """Delete a stack and return it when that has ended."""
        return self.begin("DELETE_IN_PROGRESS", name)

    def stack(self, name: str = "s") -> Document:
        stack = self.state.stack(self.id(name))
        assert stack is not None
        return stack

    def live(self, name: str = "s") -> dict[str, Properties]:
        """Return what exists of a stack by logical id, with physical ids written as ``<LogicalId>``."""
        names = {m.current.physical_id: m.logical_id for m in self.state.members(self.id(name)) if m.current is not None}
        text = json.dumps(
            {names.get(physical_id, physical_id): properties for physical_id, properties in self.world.things.items()}, sort_keys=True
        )
        for physical_id, logical_id in names.items():
            text = text.replace(str(physical_id), f"<{logical_id}>")
        found: dict[str, Properties] = json.loads(text)
        return found

    def statuses(self, name: str = "s") -> list[tuple[str, str]]:
        """Return (logical id, status) of a stack's events, oldest first."""
        return [(event["LogicalResourceId"], event["ResourceStatus"]) for event in self.state.events(self.id(name))]

    def reasons(self, name: str = "s") -> dict[tuple[str, str], str]:
        """Return the last reason of each (logical id, status)."""
        return {(e["LogicalResourceId"], e["ResourceStatus"]): e.get("ResourceStatusReason", "") for e in self.state.events(self.id(name))}


def _request(template: Json, fields: dict[str, Json]) -> dict[str, Json]:
    request = {"TemplateBody": template if isinstance(template, str) else json.dumps(template), "Capabilities": ["CAPABILITY_IAM"]}
    return request | {key: value for key, value in fields.items() if key in ("Parameters", "Tags", "Capabilities")}


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def box(**properties: Json) -> dict[str, Json]:
    """Return a template's resource."""
    return {"Type": "Test::Box", "Properties": properties}


def template(**resources: Json) -> dict[str, Json]:
    """Return a template of resources."""
    return {"Resources": resources}
