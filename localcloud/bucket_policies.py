"""Bucket policies with conditions: moto evaluates statements as if they had none, so that "deny what is not TLS" denies everything.

Requests to localcloud never leave the machine, so `aws:SecureTransport` is true. A statement with any other condition has no effect.
"""

from __future__ import annotations

import json
from typing import Any

from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.models import FakeBucket

_SECURE_TRANSPORT = "aws:securetransport"


def install() -> None:
    """Make moto's buckets decide with conditions."""
    FakeBucket.get_permission = get_permission  # type: ignore[method-assign, assignment]


def get_permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
    """Return what a bucket's policy says of an action (``s3:GetObject``) on a resource (an S3 ARN)."""
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    document: dict[str, Any] = json.loads(bucket.policy)
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    applicable = [
        {key: value for key, value in statement.items() if key != "Condition"}
        for statement in statements
        if applies(statement.get("Condition", {}))
    ]
    result: PermissionResult = IAMPolicy(json.dumps({**document, "Statement": applicable})).is_action_permitted(action, resource)
    return result


def applies(condition: dict[str, dict[str, Any]]) -> bool:
    """Return whether a statement's condition holds for a request to localcloud; False for every condition that is not about TLS."""
    for operator, keys in condition.items():
        for key, wanted in keys.items():
            if operator != "Bool" or key.lower() != _SECURE_TRANSPORT:
                return False
            values = wanted if isinstance(wanted, list) else [wanted]
            if not any(str(value).lower() == "true" for value in values):
                return False
    return True
