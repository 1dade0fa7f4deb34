"""IAM roles as services see them: may a service act as one at all?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moto.iam.models import IAMBackend, iam_backends

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


def can_assume(cloud: Cloud, role_arn: str, service_principal: str) -> bool:
    """Tell whether a role exists and its trust policy lets a service (e.g. ``lambda.amazonaws.com``) assume it."""
    backend: IAMBackend = iam_backends[cloud.settings.account_id]["aws"]
    role = next((role for role in list(backend.roles.values()) if role.arn == role_arn), None)
    if role is None:
        return False
    document = role.assume_role_policy_document
    policy: dict[str, Any] = json.loads(document) if isinstance(document, str) else document
    return any(_allows(statement, service_principal) for statement in _as_list(policy.get("Statement", [])))


def _allows(statement: dict[str, Any], service_principal: str) -> bool:
    principal = statement.get("Principal")
    services = _as_list(principal.get("Service", [])) if isinstance(principal, dict) else _as_list(principal)
    actions = _as_list(statement.get("Action", []))
    trusted = service_principal in services or "*" in services
    return statement.get("Effect") == "Allow" and trusted and any(action in ("sts:AssumeRole", "sts:*", "*") for action in actions)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
