"""How what roles may do is held against what they did (`helpers_permissions`), on a role and a usage that are small enough to see it."""

from __future__ import annotations

from typing import Any

from helpers_permissions import Role, not_needed, unused

ARN = "arn:aws:iam::123456789012:role/r"


def allow(action: object, resource: object, **more: object) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def used(action: str, resource: str, **keys: list[str]) -> dict[str, Any]:
    return {"role": ARN, "action": action, "allowed": True, "accesses": [{"resource": resource, "keys": keys}]}


def test_an_action_counts_for_the_statement_whose_resource_it_was_used_on() -> None:
    role = Role("R", ARN, {"Jobs": allow(["a:Tag", "a:Make"], "arn:job"), "Groups": allow(["a:Tag", "a:See"], "arn:group")})
    usage = [used("a:Tag", "arn:job"), used("a:Make", "arn:job"), used("a:See", "arn:group")]
    assert unused(usage, [role]) == {"R: Groups: a:Tag"}
    assert not_needed(usage, [role]) == []


def test_an_action_counts_for_the_statement_whose_condition_held() -> None:
    through = {"Condition": {"StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}}}
    role = Role("R", ARN, {"Own": allow("a:Read", "arn:x"), "Through": allow("a:Read", "arn:x", **through)})
    assert unused([used("a:Read", "arn:x")], [role]) == {"R: Through: a:Read"}
    both = [used("a:Read", "arn:x"), used("a:Read", "arn:x", **{"aws:calledvia": ["cloudformation.amazonaws.com"]})]
    assert unused(both, [role]) == set()
    assert not_needed(both, [role]) == ["R: Through: a:Read"]


def test_a_resource_that_nothing_was_done_on_is_too_much_and_so_is_one_inside_another() -> None:
    role = Role("R", ARN, {"Data": allow("a:Read", ["arn:raw/*", "arn:runs/*"]), "Never": allow("a:Write", ["arn:raw/*", "arn:runs/*"])})
    assert unused([used("a:Read", "arn:raw/1")], [role]) == {"R: Data: arn:runs/*", "R: Never: a:Write"}
    wide = Role("R", ARN, {"Data": allow("a:Read", ["arn:*", "arn:raw/*"])})
    usage = [used("a:Read", "arn:raw/1"), used("a:Read", "arn:runs/1")]
    assert (unused(usage, [wide]), not_needed(usage, [wide])) == (set(), ["R: Data: arn:raw/*"])
