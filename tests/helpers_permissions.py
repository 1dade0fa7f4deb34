"""What the roles of a stack are allowed to do, against what they did on localcloud.

localcloud decides every request of a role by its policies and remembers it (``/_localcloud/iam/usage``). From that follows: nothing was refused; no
permission is given for nothing, or a reason is written down; and each permission that was used is needed, as without it what happened would be refused.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localcloud.iam.document import Access, Principal
from localcloud.iam.evaluation import Policies, decide
from localcloud.iam.matching import matches_action

#: Role → reason → the actions that it is allowed for that reason, though the tests' run does not use them.
UNUSED = Path(__file__).parent / "e2e" / "unused_permissions.yaml"

Json = dict[str, Any]


@dataclass(frozen=True)
class Role:
    """A role of a stack.

    Attributes:
        name: Its logical id.
        arn: Its ARN.
        policies: Its policy documents, attached ones included.
    """

    name: str
    arn: str
    policies: tuple[Json, ...]

    @property
    def actions(self) -> set[str]:
        """Every action, or pattern of actions, that some statement allows."""
        return {action for statement in self._statements() for action in _as_list(statement["Action"])}

    def without(self, action: str) -> tuple[Json, ...]:
        """Return the policies with one action taken out of them."""
        return tuple(
            {
                **policy,
                "Statement": [
                    {**statement, "Action": kept}
                    for statement in policy["Statement"]
                    if (kept := [one for one in _as_list(statement["Action"]) if one != action])
                ],
            }
            for policy in self.policies
        )

    def _statements(self) -> Iterable[Json]:
        return (statement for policy in self.policies for statement in policy["Statement"] if statement["Effect"] == "Allow")


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
        arn = iam.get_role(RoleName=name)["Role"]["Arn"]
        found.append(Role(resource["LogicalResourceId"], arn, tuple(policies)))
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
    """Return ``role: action`` of what roles are allowed and did not use."""
    used = {(entry["role"], entry["action"]) for entry in usage if entry["allowed"]}
    return {
        f"{role.name}: {action}"
        for role in roles
        for action in role.actions
        if not any(arn == role.arn and matches_action(action, done) for arn, done in used)
    }


def listed_as_unused(roles: Iterable[Role]) -> tuple[set[str], set[str]]:
    """Return ``role: action`` of what `UNUSED` lists for these roles, and those of them that a run may use or not."""
    listed: Mapping[str, Mapping[str, list[str]]] = yaml.safe_load(UNUSED.read_text())
    entries = [(role.name, reason, action) for role in roles for reason, all_ in listed.get(role.name, {}).items() for action in all_]
    sometimes = {f"{name}: {action}" for name, reason, action in entries if reason.startswith("sometimes")}
    return {f"{name}: {action}" for name, _, action in entries}, sometimes


def not_needed(usage: Iterable[Json], roles: Iterable[Role]) -> list[str]:
    """Return permissions that were used and without which everything that happened would be allowed all the same."""
    found = []
    entries = [entry for entry in usage if entry["allowed"]]
    for role in roles:
        principal = Principal("AWS", (role.arn,))
        for action in role.actions:
            accesses = [
                Access(entry["action"], access["resource"], {name: tuple(values) for name, values in access["keys"].items()})
                for entry in entries
                if entry["role"] == role.arn and matches_action(action, entry["action"])
                for access in entry["accesses"]
            ]
            less = Policies(tuple(json.dumps(policy) for policy in role.without(action)))
            if accesses and all(decide(principal, access, less).allowed for access in accesses):
                found.append(f"{role.name}: {action}")
    return found


def of_keys(usage: Iterable[Json]) -> list[Json]:
    """Return what was done with KMS keys."""
    return [entry for entry in usage if entry["action"].startswith("kms:")]


def not_needed_services(usage: Iterable[Json], roles: Iterable[Role]) -> list[str]:
    """Return services through which roles may use a key, and through which none of a policy's roles did anything that is allowed through it only."""
    entries, needed, found = [entry for entry in usage if entry["allowed"]], set(), set()
    for role in roles:
        accesses = [
            Access(entry["action"], access["resource"], {name: tuple(values) for name, values in access["keys"].items()})
            for entry in entries
            if entry["role"] == role.arn
            for access in entry["accesses"]
        ]
        for policy in role.policies:
            for statement in policy["Statement"]:
                services = _as_list(statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", []))
                for service in services:
                    name = f"{json.dumps(statement['Action'])} through {service}"
                    found.add(name)
                    fewer = [one for one in services if one != service]
                    condition = {**statement["Condition"], "StringEquals": {"kms:ViaService": fewer}}
                    less = {
                        **policy,
                        "Statement": [{**one, "Condition": condition} if one == statement else one for one in policy["Statement"]],
                    }
                    others = (json.dumps(less if one == policy else one) for one in role.policies)
                    policies = Policies(tuple(others))
                    if not all(decide(Principal("AWS", (role.arn,)), access, policies).allowed for access in accesses):
                        needed.add(name)
    return sorted(found - needed)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
