"""Roles that may do what a test says, and clients that have assumed one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from helpers_functions import SERVICES

ACCOUNT = "123456789012"


class Roles:
    """Makes roles, and clients that have assumed one."""

    def __init__(self, region: Any) -> None:
        self._region = region
        self._iam = region.client("iam")
        self._count = 0

    def make(self, *statements: dict[str, Any], **more: Any) -> str:
        """Return the ARN of a role with one inline policy."""
        self._count += 1
        name = f"role-{self._count}"
        principal = {"Service": [*SERVICES, "sagemaker.amazonaws.com", "cloudformation.amazonaws.com"]}
        trust = [
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"},
            {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"},
        ]
        arn = self._iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust}), **more
        )
        self.allow(name, *statements)
        return str(arn["Role"]["Arn"])

    def allow(self, name: str, *statements: dict[str, Any]) -> None:
        """Replace a role's inline policy."""
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        self._iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(document))

    def client(self, role_arn: str, service: str) -> Any:
        """Return a client with credentials from AssumeRole."""
        given = self._region.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="me")["Credentials"]
        return boto3.client(
            service,
            endpoint_url=self._region.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )


def allow(*actions: str, on: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    """Return a statement."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": on}
    return statement | ({"Condition": condition} if condition else {})


def refused(call: Callable[..., Any], code: str, **arguments: Any) -> str:
    """Make a request that is refused with this error code, and return the message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code
    return str(caught.value.response["Error"]["Message"])
