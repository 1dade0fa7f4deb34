"""Roles that may do everything, for tests that are about something else than permissions."""

from __future__ import annotations

import json
from typing import Any

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def mighty_role(iam: Any, name: str, trust: dict[str, Any]) -> str:
    """Make a role and return its ARN.

    Args:
        iam: A boto3 client.
        name: Of the role.
        trust: Its trust policy.
    """
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING))
    return arn
