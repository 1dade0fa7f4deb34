"""Resource policies: may an AWS service, on behalf of one of the account's resources, do something to a function, a queue or a topic?"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServiceCall:
    """What a service asks to do.

    Attributes:
        principal: The service, e.g. ``events.amazonaws.com``.
        action: E.g. ``lambda:InvokeFunction``.
        resource: ARN of what it is done to.
        source_arn: ARN of what it is done for, e.g. the rule.
        source_account: The account of that.
        source_owner: The account on whose behalf SNS is asked, for the services that say so (CloudWatch).
    """

    principal: str
    action: str
    resource: str
    source_arn: str
    source_account: str
    source_owner: str | None = None


def allows(policy: dict[str, Any] | None, call: ServiceCall) -> bool:
    """Tell whether a policy document allows a call: some statement allows and none denies it."""
    statements = _as_list((policy or {}).get("Statement", []))
    effects = {statement.get("Effect") for statement in statements if _applies(statement, call)}
    return effects == {"Allow"}


def _applies(statement: dict[str, Any], call: ServiceCall) -> bool:
    return (
        _principal_matches(statement.get("Principal"), call.principal)
        and any(_matches(pattern.lower(), call.action.lower()) for pattern in _as_list(statement.get("Action", [])))
        and any(_matches(pattern, call.resource) for pattern in _as_list(statement.get("Resource", "*")))
        and all(_condition_holds(operator, keys, call) for operator, keys in statement.get("Condition", {}).items())
    )


def _principal_matches(principal: Any, service: str) -> bool:
    if principal == "*":
        return True
    if not isinstance(principal, dict):
        return False
    return service in _as_list(principal.get("Service", [])) or "*" in _as_list(principal.get("AWS", []))


def _condition_holds(operator: str, keys: dict[str, Any], call: ServiceCall) -> bool:
    values = {
        "aws:sourcearn": call.source_arn,
        "aws:sourceaccount": call.source_account,
        "aws:sourceowner": call.source_owner,
        "aws:principalservicename": call.principal,
    }
    name = operator.removesuffix("IfExists")
    negated = name.replace("Not", "") if "Not" in name else None
    for key, patterns in keys.items():
        value = values.get(key.lower())
        if value is None:
            if operator.endswith("IfExists") or negated:
                continue
            return False
        if (negated or name) in ("ArnLike", "StringLike", "ArnEquals"):
            found = any(_matches(pattern, value) for pattern in _as_list(patterns))
        elif (negated or name) == "StringEqualsIgnoreCase":
            found = value.lower() in [str(pattern).lower() for pattern in _as_list(patterns)]
        elif (negated or name) == "StringEquals":
            found = value in _as_list(patterns)
        else:
            return False
        if found == bool(negated):
            return False
    return True


def _matches(pattern: str, value: str) -> bool:
    # IAM knows "*" and "?"; fnmatch also gives "[" a meaning, which is taken from it.
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
