"""What a resource type is to the engine: a schema, and the calls of public APIs that create, update and delete one."""

from __future__ import annotations

import re
import secrets
import string
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from localcloud.cloudformation.errors import Cancelled, ResourceFailure, Stopping, handler_failure
from localcloud.cloudformation.functions import Unknown
from localcloud.cloudformation.schema import MapOf, Object

Json = Any
Properties = dict[str, Json]

_ALPHANUMERIC = string.ascii_uppercase + string.digits
_RANDOM_LENGTH = 12


class TagStyle(Enum):
    """How a type's ``Tags`` property is written."""

    LIST = "list"
    MAP = "map"


@dataclass(frozen=True)
class NameRule:
    """How a resource of a type gets its name.

    Attributes:
        property: The property with which a template may choose it; None when it cannot.
        longest: The service's limit; generated names are cut to it.
        lower: The service takes lower-case names only.
        unique: Nothing else can have the same name, so that a chosen name that is taken is an error (and replacing such a resource is one).
    """

    property: str | None
    longest: int = 64
    lower: bool = False
    unique: bool = True


@dataclass(frozen=True)
class Place:
    """Where a region's resources live."""

    region: str = "us-east-1"
    account: str = "123456789012"
    partition: str = "aws"

    def arn(self, service: str, resource: str, *, region: str | None = None) -> str:
        """Return an ARN, e.g. ``arn("sqs", "name")``; ``region=""`` for IAM and S3."""
        return f"arn:{self.partition}:{service}:{self.region if region is None else region}:{self.account}:{resource}"


@dataclass(frozen=True)
class Context:
    """What a provider may use for one resource of one stack operation.

    Attributes:
        clients: boto3 clients onto this region by service name.
        place: Region, account, partition.
        stack_id: The stack.
        stack_name: Its name.
        logical_id: The resource's logical id.
        stack_tags: The stack's tags.
        cancelled: Whether the stack operation is being ended.
        stopping: Whether the process is ending.
        restored: In an update that is undone: the attributes that the resource had before.
    """

    clients: Callable[[str], Any]
    place: Place
    stack_id: str
    stack_name: str
    logical_id: str
    stack_tags: Mapping[str, str]
    cancelled: Callable[[], bool]
    stopping: Callable[[], bool]
    restored: Mapping[str, Json] = field(default_factory=dict)

    def wait_for(self, condition: Callable[[], Any], *, seconds: float, what: str, cancellable: bool = True) -> Any:
        """Return the first truthy value of *condition*, asked ever more slowly (20 ms to 0.5 s).

        Raises:
            ResourceFailure: *seconds* have passed.
            Cancelled: The stack operation ended (with *cancellable*).
            Stopping: The process is ending.
        """
        deadline, pause = time.monotonic() + seconds, 0.02
        while True:
            value = condition()
            if value:
                return value
            if self.stopping():
                raise Stopping
            if cancellable and self.cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise handler_failure(f"Exceeded attempts to wait: {what} within {seconds:g} s", "NotStabilized")
            time.sleep(pause)
            pause = min(pause * 1.2, 0.5)


class Provider(ABC):
    """One resource type. Properties that reach these methods are evaluated, converted and complete; names are decided by the engine.

    `create` makes one call and returns; what it returned is recorded before `settle` does the rest (further settings, waiting), so that a failure or a
    crash in between leaves nothing that nobody knows of.
    """

    type: ClassVar[str]
    schema: ClassVar[Object | MapOf]
    #: Properties whose change needs a new physical resource (AWS's "Update requires: Replacement").
    replaced_by: ClassVar[frozenset[str]] = frozenset()
    #: Names for Fn::GetAtt; ``"*"`` accepts every name.
    attributes: ClassVar[frozenset[str]] = frozenset()
    name: ClassVar[NameRule] = NameRule(None)
    tags: ClassVar[TagStyle | None] = None
    #: Updating the stack always looks at this resource, also when its properties are the same (nested stacks).
    always_updated: ClassVar[bool] = False
    #: The property that identifies a resource in ResourcesToImport (the schema's primaryIdentifier); None: the type cannot be imported.
    imported_by: ClassVar[str | None] = None
    #: The capability that a template with this type must be given.
    capability: ClassVar[str | None] = None
    snapshots: ClassVar[bool] = False
    #: Regions in which AWS has no such type.
    not_in: ClassVar[frozenset[str]] = frozenset()

    def validate(self, properties: Properties) -> None:  # noqa: B027  # most types have nothing more to check
        """Check what the schema cannot say (parts may be `Unknown`).

        Raises:
            PropertyError: A property does not fit.
        """

    def name_suffix(self, properties: Properties) -> str:
        """Return what a generated name must end with (a FIFO queue's ".fifo")."""
        return ""

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether something of a chosen name is already there; asked before `create` when the template chose the name."""
        return False

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Return the physical id that `create` will give; None when only the service knows it. A crash during `create` is cleaned up with it."""
        return name

    @abstractmethod
    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the resource and return its physical id (the value of Ref).

        Raises:
            ResourceFailure: Or botocore's ClientError; then nothing was created.
        """

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:  # noqa: B027  # most types are done when they are created
        """Finish what `create` began."""

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the values for Fn::GetAtt."""
        return {}

    def replaces(self, old: Properties, new: Properties) -> bool:
        """Return whether a change needs a new physical resource beyond what `replaced_by` says."""
        return False

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> str | None:
        """Change the resource in place. Must work from any mixture of *old* and *new*, as it also undoes an update that failed half-way.

        Returns:
            A new physical id when the update turned out to make a new resource (custom resources may); the old one is deleted later.
        """
        raise ResourceFailure(f"{self.type} cannot be updated in place")

    @abstractmethod
    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the resource. "Not found" answers are taken as done."""


def changed(old: Properties, new: Properties, *names: str) -> bool:
    """Return whether any of the named properties differs."""
    return any(old.get(name) != new.get(name) for name in names)


def generated_name(stack_name: str, logical_id: str, rule: NameRule, suffix: str = "") -> str:
    """Return a physical name as CloudFormation makes them: ``<stack>-<logical id>-<random>``, cut to the service's limit."""
    random = "".join(secrets.choice(_ALPHANUMERIC) for _ in range(_RANDOM_LENGTH))
    room = rule.longest - len(random) - len(suffix) - 2
    stack, logical = stack_name, logical_id
    if len(stack) + len(logical) > room:
        # Both are cut; the logical id says more, so it keeps at least half.
        logical = logical[: max(room - len(stack), room // 2)]
        stack = stack[: room - len(logical)]
    name = f"{stack}-{logical}-{random}"
    name = re.sub(r"-{2,}", "-", name)
    return (name.lower() if rule.lower else name) + suffix


def tag_dictionary(tags: Json) -> dict[str, str]:
    """Return a list of Key/Value objects (or a map) as a dictionary."""
    if isinstance(tags, Mapping):
        return dict(tags)
    return {tag["Key"]: tag.get("Value", "") for tag in tags or []}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a dictionary as a list of Key/Value objects, in key order."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def with_stack_tags(style: TagStyle | None, properties: Properties, stack_tags: Mapping[str, str]) -> Properties:
    """Return properties with the stack's tags added; the resource's own win."""
    if style is None or not stack_tags:
        return properties
    own = properties.get("Tags")
    if isinstance(own, Unknown):
        return properties
    if style is TagStyle.MAP:
        return {**properties, "Tags": {**stack_tags, **(own or {})}}
    own = own or []
    if any(not isinstance(tag, dict) or isinstance(tag.get("Key"), Unknown) for tag in own):
        return properties
    names = {tag.get("Key") for tag in own}
    return {**properties, "Tags": [*own, *(tag for tag in tag_list(stack_tags) if tag["Key"] not in names)]}


def tag_changes(old: Properties, new: Properties) -> tuple[dict[str, str], list[str]]:
    """Return the tags to set and the keys to remove."""
    before, after = tag_dictionary(old.get("Tags")), tag_dictionary(new.get("Tags"))
    return {key: value for key, value in after.items() if before.get(key) != value}, sorted(set(before) - set(after))
