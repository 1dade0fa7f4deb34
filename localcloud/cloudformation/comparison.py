"""One resource of a stack as its template has it, and as it really is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.cloudformation import readers
from localcloud.cloudformation.dynamic import resolve_dynamic

if TYPE_CHECKING:
    from localcloud.cloudformation.state import Member

Json = Any


@dataclass(frozen=True)
class Comparison:
    """What a resource is to be and what it is.

    Attributes:
        expected: The properties that can be compared, in the form in which they are.
        real: The same of the real resource; None when it is gone.
        actual: The properties that the stack knows, with what is really there in the place of those that differ; None when it is gone.
    """

    expected: readers.Properties
    real: readers.Properties | None
    actual: readers.Properties | None

    @property
    def drifted(self) -> bool:
        """Whether somebody changed or deleted the resource."""
        return self.real != self.expected


#: Clients, all members of the stack, one of them → its comparison; None when its type cannot be compared.
Compare = Callable[[readers.Clients, "Iterable[Member]", "Member"], Comparison | None]


def compare(clients: readers.Clients, members: Iterable[Member], member: Member) -> Comparison | None:
    """Compare a member with reality; None when its type cannot be, or it was never made.

    Raises:
        ClientError: It cannot be read.
        ResourceFailure: A dynamic reference in its properties cannot be looked up.
    """
    instance = member.current
    if instance is None or instance.physical_id is None or member.type not in readers.READERS:
        return None
    wanted = resolve_dynamic(instance.properties, clients)
    found = readers.read(member.type, clients, instance.physical_id, wanted)
    expected = readers.comparable(member.type, wanted)
    if found is None:
        return Comparison(expected, None, None)
    if member.type == "AWS::IAM::Role":
        found = _without_given(found, members, instance.physical_id)
    # "CloudFormation only determines drift for property values that are explicitly set."
    real = {key: value for key, value in readers.comparable(member.type, found).items() if key in expected}
    differing = {key for key, value in expected.items() if real.get(key) != value}
    kept = {key: value for key, value in instance.properties.items() if key not in differing}
    return Comparison(expected, real, kept | {key: found[key] for key in sorted(differing) if key in found})


def _without_given(role: readers.Properties, members: Iterable[Member], name: str) -> readers.Properties:
    """Leave out the policies that other resources of the stack give a role."""
    inline, managed = set(), set()
    for member in members:
        instance = member.current
        if instance is None or name not in (instance.properties.get("Roles") or ()):
            continue
        if member.type == "AWS::IAM::Policy":
            inline.add(instance.properties["PolicyName"])
        elif member.type == "AWS::IAM::ManagedPolicy":
            managed.add(instance.physical_id)
    return role | {
        "Policies": [item for item in role["Policies"] if item["PolicyName"] not in inline],
        "ManagedPolicyArns": [arn for arn in role["ManagedPolicyArns"] if arn not in managed],
    }
