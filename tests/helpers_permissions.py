"""What the roles of a stack are allowed to do, against what they did on localcloud.

localcloud decides every request of a role by its policies and remembers it (``/_localcloud/iam/usage``). From that follows, statement by statement: nothing was
refused; no permission is given for nothing, or a reason is written down; and each that was used is needed, as without it what happened would be refused.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from localcloud.iam.document import Access, Principal, Statement
from localcloud.iam.evaluation import Policies, decide

#: Role → reason → statement → the actions, and the resources, that it has for that reason, though the tests' run does not use them.
UNUSED = Path(__file__).parent / "e2e" / "unused_permissions.yaml"
_VERSION = "2012-10-17"

Json = dict[str, Any]


@dataclass(frozen=True)
class Grant:
    """One of the actions of a statement, or one of its resources where it has several."""

    role: str
    sid: str
    member: Literal["Action", "Resource"]
    value: str

    def __str__(self) -> str:
        return f"{self.role}: {self.sid}: {self.value}"


@dataclass(frozen=True)
class Role:
    """A role of a stack.

    Attributes:
        name: Its logical id.
        arn: Its ARN.
        statements: The statements of its policies, attached ones included, by their Sid.
    """

    name: str
    arn: str
    statements: Mapping[str, Json]

    def grants(self) -> Iterator[Grant]:
        """Yield what its statements allow, piece by piece."""
        for sid, statement in self.statements.items():
            actions, resources = _as_list(statement["Action"]), _as_list(statement["Resource"])
            yield from (Grant(self.name, sid, "Action", action) for action in actions)
            yield from (Grant(self.name, sid, "Resource", resource) for resource in resources if len(resources) > 1)

    def did(self, usage: Iterable[Json]) -> list[Access]:
        """Return what it was allowed to do."""
        return [
            Access(entry["action"], access["resource"], {name: tuple(values) for name, values in access["keys"].items()})
            for entry in usage
            if entry["role"] == self.arn and entry["allowed"]
            for access in entry["accesses"]
        ]

    def allowed_by(self, grant: Grant, done: Iterable[Access]) -> list[Access]:
        """Return what its statement would allow with nothing but this piece."""
        narrowed = Statement({**self.statements[grant.sid], grant.member: grant.value})
        return [access for access in done if narrowed.applies(access)]

    def without(self, grant: Grant) -> Policies:
        """Return its policies with this piece taken out of them."""
        statement = self.statements[grant.sid]
        kept = [value for value in _as_list(statement[grant.member]) if value != grant.value]
        return self.with_statement(grant.sid, {**statement, grant.member: kept} if kept else None)

    def with_statement(self, sid: str, statement: Json | None) -> Policies:
        """Return its policies with another statement in the place of one, or with none there."""
        others = [other for name, other in self.statements.items() if name != sid]
        return Policies((json.dumps({"Version": _VERSION, "Statement": [*others, *([] if statement is None else [statement])]}),))


def roles_of(client: Callable[[str], Any], stack: str) -> list[Role]:
    """Return the roles that a stack made."""
    iam = client("iam")
    found = []
    for resource in client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]:
        if resource["ResourceType"] != "AWS::IAM::Role":
            continue
        name = resource["PhysicalResourceId"]
        inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
        policies = [iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in inline]
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
            policies.append(iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"])
        assert {policy["Version"] for policy in policies} == {_VERSION}
        statements = [statement for policy in policies for statement in policy["Statement"]]
        role = Role(resource["LogicalResourceId"], iam.get_role(RoleName=name)["Role"]["Arn"], {item["Sid"]: item for item in statements})
        assert len(role.statements) == len(statements), f"two statements of {role.name} have the same Sid, so that neither can be named"
        found.append(role)
    return found


def usage_of(endpoint_url: str) -> list[Json]:
    """Return what roles did, see `localcloud.iam.guard.Guard.usage`."""
    with urllib.request.urlopen(f"{endpoint_url}/_localcloud/iam/usage") as response:
        found: list[Json] = json.load(response)
    return found


def refused(usage: Iterable[Json], roles: Iterable[Role]) -> list[str]:
    """Return what roles tried and were not allowed, as sentences."""
    names = {role.arn: role.name for role in roles}
    return [
        f"{names[entry['role']]} may not {entry['action']} on {access['resource']}"
        for entry in usage
        if entry["role"] in names and not entry["allowed"]
        for access in entry["accesses"]
    ]


def unused(usage: Iterable[Json], roles: Iterable[Role]) -> set[str]:
    """Return what roles are allowed and did not use; of a statement without any use the actions only."""
    found = set()
    for role in roles:
        done = role.did(usage)
        never = [grant for grant in role.grants() if not role.allowed_by(grant, done)]
        used = {sid for sid, statement in role.statements.items() if any(map(Statement(statement).applies, done))}
        found |= {str(grant) for grant in never if grant.member == "Action" or grant.sid in used}
    return found


def listed_as_unused(roles: Iterable[Role]) -> tuple[set[str], set[str]]:
    """Return what `UNUSED` lists for these roles, and that part of it which a run may use or not."""
    listed: Mapping[str, Mapping[str, Mapping[str, list[str]]]] = yaml.safe_load(UNUSED.read_text())
    entries = [
        (reason, f"{role.name}: {sid}: {value}")
        for role in roles
        for reason, statements in listed.get(role.name, {}).items()
        for sid, values in statements.items()
        for value in values
    ]
    return {entry for _, entry in entries}, {entry for reason, entry in entries if reason.startswith("sometimes")}


def not_needed(usage: Iterable[Json], roles: Iterable[Role]) -> list[str]:
    """Return what was used and without which everything that happened would be allowed all the same."""
    found = []
    for role in roles:
        principal, done = Principal("AWS", (role.arn,)), role.did(usage)
        for grant in role.grants():
            accesses, less = role.allowed_by(grant, done), role.without(grant)
            if accesses and all(decide(principal, access, less).allowed for access in accesses):
                found.append(str(grant))
    return found


def of_keys(usage: Iterable[Json]) -> list[Json]:
    """Return what was done with KMS keys."""
    return [entry for entry in usage if entry["action"].startswith("kms:")]


def not_needed_services(usage: Iterable[Json], roles: Iterable[Role]) -> list[str]:
    """Return services through which statements allow the use of a key, and through which no role did anything that is allowed through them only."""
    needed, found = set(), set()
    for role in roles:
        principal, done = Principal("AWS", (role.arn,)), role.did(usage)
        for sid, statement in role.statements.items():
            services = _as_list(statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", []))
            for service in services:
                name = f"{json.dumps(statement['Action'])} through {service}"
                found.add(name)
                fewer = {"StringEquals": {"kms:ViaService": [one for one in services if one != service]}}
                less = role.with_statement(sid, {**statement, "Condition": {**statement["Condition"], **fewer}})
                if not all(decide(principal, access, less).allowed for access in done):
                    needed.add(name)
    return sorted(found - needed)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
