"""Policy documents as statements that can be asked."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from localcloud.iam.conditions import Context, holds
from localcloud.iam.matching import matches_action, matches_arn, substitute

#: Element of a principal block → names; ``{"*": ("*",)}`` for everybody.
Principals = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        kind: ``AWS`` for a role, ``Service`` for an AWS service that acts for one of the account's resources.
        names: By which names a policy may mean it: a role's ARN and that of its session; a service's ``events.amazonaws.com``.
        account: The account's root ARN and number, by which a policy hands the decision to the account's own policies.
    """

    kind: Literal["AWS", "Service"]
    names: tuple[str, ...]
    account: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """What is asked.

    Attributes:
        action: E.g. ``s3:GetObject``.
        resource: ARN, or ``*`` for an action that has no resource.
        context: Values of condition keys.
    """

    action: str
    resource: str
    context: Context


class Statement:
    """One statement of a policy.

    Args:
        document: The statement.
        variables: Whether ``${...}`` in it is a variable; in policies of the older version it is text
            (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html).
    """

    def __init__(self, document: Mapping[str, Any], *, variables: bool = True) -> None:
        self._variables = variables
        self.sid: str = document.get("Sid", "")
        self.allows: bool = document.get("Effect") == "Allow"
        self.actions = _texts(document.get("Action"))
        self._not_actions = _texts(document.get("NotAction"))
        self._resources = _texts(document.get("Resource"))
        self._not_resources = _texts(document.get("NotResource"))
        self._condition: Mapping[str, Mapping[str, object]] = document.get("Condition") or {}
        self._principals = _principals(document.get("Principal"))
        self._not_principals = _principals(document.get("NotPrincipal"))

    def applies(self, access: Access) -> bool:
        """Tell whether the statement speaks of an access, whoever asks.

        Raises:
            ServiceError: Its condition has an operator that IAM does not have.
        """
        return (
            self._means_action(access.action)
            and self._means_resource(access)
            and holds(self._condition, access.context, variables=self._variables)
        )

    def names(self, principal: Principal) -> bool:
        """Tell whether a resource policy's statement speaks of who asks, by its own name."""
        if self._not_principals:
            return not _named(self._not_principals, principal.kind, (*principal.names, *principal.account))
        return _named(self._principals, principal.kind, principal.names)

    def names_account(self, principal: Principal) -> bool:
        """Tell whether a resource policy's statement speaks of the account of who asks."""
        return _named(self._principals, principal.kind, principal.account)

    def _means_action(self, action: str) -> bool:
        if self._not_actions:
            return not any(matches_action(pattern, action) for pattern in self._not_actions)
        return any(matches_action(pattern, action) for pattern in self.actions)

    def _means_resource(self, access: Access) -> bool:
        if self._not_resources:
            return not self._means(self._not_resources, access)
        # Trust policies have none: they speak of the role that they belong to.
        return not self._resources or self._means(self._resources, access)

    def _means(self, patterns: tuple[str, ...], access: Access) -> bool:
        known = (substitute(pattern, access.context) if self._variables else pattern for pattern in patterns)
        return any(pattern is not None and (matches_arn(pattern, access.resource) or pattern == access.resource) for pattern in known)


def _named(principals: Principals, kind: str, names: tuple[str, ...]) -> bool:
    # {"AWS": "*"} means everybody, as "*" does; a star within a name is none
    # (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html).
    everybody = "*" in principals or "*" in principals.get("AWS", ())
    return everybody or any(name in names for name in principals.get(kind, ()))


def _principals(value: Any) -> Principals:
    if value == "*":
        return {"*": ("*",)}
    return {kind: _texts(names) for kind, names in value.items()} if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(item) for item in value) if isinstance(value, list) else (str(value),)


@functools.lru_cache(maxsize=512)
def statements(text: str) -> tuple[Statement, ...]:
    """Return the statements of a policy document (JSON)."""
    document = json.loads(text)
    found, variables = document.get("Statement", []), document.get("Version") == "2012-10-17"
    return tuple(Statement(statement, variables=variables) for statement in (found if isinstance(found, list) else [found]))
