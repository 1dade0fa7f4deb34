"""AWS's decision of a request within one account.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics.html: a Deny anywhere decides; then an Allow of
the role's own policies, within its permissions boundary, or of the resource's policy is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from localcloud.iam.document import Access, Principal, Statement, statements


@dataclass(frozen=True)
class Policies:
    """What decides an access.

    Attributes:
        identity: The role's own policies (JSON texts).
        boundary: Its permissions boundary, or None.
        resource: The resource's policy, or None.
        resource_decides: The resource's policy must allow, itself or by handing the decision to the account (KMS keys); the role's own do not suffice.
    """

    identity: tuple[str, ...]
    boundary: str | None = None
    resource: str | None = None
    resource_decides: bool = False


@dataclass(frozen=True)
class Decision:
    """What came out.

    Attributes:
        allowed: Whether it may be done.
        reason: Why not, in the words of AWS's error messages; empty when it may.
    """

    allowed: bool
    reason: str = ""


_ALLOWED = Decision(True)


def decide(principal: Principal, access: Access, policies: Policies) -> Decision:
    """Decide an access.

    Raises:
        ServiceError: A policy has a condition operator that IAM does not have.
    """
    own = [statement for text in policies.identity for statement in _applying(text, access)]
    boundary = None if policies.boundary is None else _applying(policies.boundary, access)
    resource = [] if policies.resource is None else _applying(policies.resource, access)
    named = [statement for statement in resource if statement.names(principal)]
    delegated = [statement for statement in resource if statement.names_account(principal)]
    for kind, found in (
        ("an identity-based policy", own),
        ("a permissions boundary", boundary or []),
        ("a resource-based policy", [*named, *delegated]),
    ):
        if not all(statement.allows for statement in found):
            return Decision(False, f"with an explicit deny in {kind}")
    if boundary is not None and not boundary:
        return Decision(False, f"because no permissions boundary allows the {access.action} action")
    if named:
        return _ALLOWED
    if policies.resource_decides and not delegated:
        return Decision(False, f"because no resource-based policy allows the {access.action} action")
    if own:
        return _ALLOWED
    return Decision(False, f"because no identity-based policy allows the {access.action} action")


def resource_allows(principal: Principal, access: Access, policy: str | None) -> bool:
    """Decide by a resource's policy alone, as for AWS's services, which have no policies of their own."""
    found = [statement for statement in _applying(policy, access) if statement.names(principal)] if policy else []
    return bool(found) and all(statement.allows for statement in found)


def _applying(text: str, access: Access) -> list[Statement]:
    return [statement for statement in statements(text) if statement.applies(access)]
