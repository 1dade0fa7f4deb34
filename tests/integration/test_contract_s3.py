"""The seam into moto's S3: bucket policies with conditions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError


def policy(bucket: str, effect: str, action: str, **condition: Any) -> str:
    statement = {"Effect": effect, "Principal": "*", "Action": action, "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, **({"Condition": condition} if condition else {})}]})


@pytest.mark.parametrize(
    ("name", "condition", "readable"),
    [
        ("denied-without-tls", {"Bool": {"aws:SecureTransport": "false"}}, True),
        ("denied-with-tls", {"Bool": {"aws:SecureTransport": ["true"]}}, False),
        ("denied-always", {}, False),
        ("denied-elsewhere", {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, False),
    ],
)
def test_a_bucket_policys_deny_counts_when_its_condition_holds(region: Any, name: str, condition: dict[str, Any], readable: bool) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    s3.put_bucket_policy(Bucket=name, Policy=policy(name, "Deny", "s3:GetObject", **condition))
    if readable:
        assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"x"
    else:
        with pytest.raises(ClientError, match=r"AccessDenied|403|Forbidden"):
            s3.get_object(Bucket=name, Key="k")
