"""A policy that AWS would not take is refused when it is put, not when somebody is to be let in by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region

GOOD: dict[str, Any] = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::checked/*"}
CHANGES: dict[str, dict[str, Any]] = {
    "an unknown operator": {"Condition": {"StringIsNice": {"aws:PrincipalArn": "x"}}},
    "an operator without keys": {"Condition": {"StringEquals": "x"}},
    "a value that is none": {"Condition": {"StringEquals": {"aws:PrincipalArn": {}}}},
    "a condition that is none": {"Condition": ["x"]},
    "an effect in lower case": {"Effect": "allow"},
    "an action without service": {"Action": "GetObject"},
    "an action that is none": {"Action": [1]},
    "both actions": {"NotAction": "s3:PutObject"},
    "a star in a name": {"Principal": {"AWS": "arn:aws:iam::123456789012:role/*"}},
    "a principal of no kind": {"Principal": {"Role": "x"}},
    "a resource that is none": {"Resource": [1]},
    "an unknown element": {"Conditions": {}},
}
BAD: dict[str, str] = {
    "no JSON": "{",
    "no document": "[]",
    "an unknown member": json.dumps({"Statement": [GOOD], "Statements": []}),
    "an unknown version": json.dumps({"Version": "2020-01-01", "Statement": [GOOD]}),
    "no statement": json.dumps({"Version": "2012-10-17", "Statement": []}),
    "a statement that is none": json.dumps({"Statement": ["x"]}),
    **{name: json.dumps({"Version": "2012-10-17", "Statement": [{**GOOD, **change}]}) for name, change in CHANGES.items()},
}
Put = Callable[[Region, str], Any]


def put_on_bucket(region: Region, text: str) -> None:
    region.client("s3").put_bucket_policy(Bucket="checked", Policy=text)


def put_on_queue(region: Region, text: str) -> None:
    region.client("sqs").set_queue_attributes(
        QueueUrl=region.client("sqs").get_queue_url(QueueName="checked")["QueueUrl"], Attributes={"Policy": text}
    )


def create_queue(region: Region, text: str) -> None:
    region.client("sqs").create_queue(QueueName="new", Attributes={"Policy": text})


def put_on_topic(region: Region, text: str) -> None:
    topic = region.client("sns").create_topic(Name="checked")["TopicArn"]
    region.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=text)


def create_topic(region: Region, text: str) -> None:
    region.client("sns").create_topic(Name="new", Attributes={"Policy": text})


def create_key(region: Region, text: str) -> None:
    region.client("kms").create_key(Policy=text)


def put_on_key(region: Region, text: str) -> None:
    kms = region.client("kms")
    kms.put_key_policy(KeyId=kms.create_key()["KeyMetadata"]["KeyId"], PolicyName="default", Policy=text)


@pytest.fixture(scope="module", autouse=True)
def _resources(region: Region) -> None:
    region.client("s3").create_bucket(Bucket="checked")
    region.client("sqs").create_queue(QueueName="checked")


@pytest.mark.parametrize(
    ("put", "code"),
    [
        (put_on_bucket, "MalformedPolicy"),
        (put_on_queue, "InvalidAttributeValue"),
        (create_queue, "InvalidAttributeValue"),
        (put_on_topic, "InvalidParameter"),
        (create_topic, "InvalidParameter"),
        (create_key, "MalformedPolicyDocumentException"),
        (put_on_key, "MalformedPolicyDocumentException"),
    ],
)
def test_a_bad_policy_of_a_resource_is_refused(region: Region, put: Put, code: str) -> None:
    for name, text in BAD.items():
        with pytest.raises(ClientError) as caught:
            put(region, text)
        assert caught.value.response["Error"]["Code"] == code, name
    put(region, json.dumps({"Version": "2012-10-17", "Statement": [GOOD]}))
    region.client("s3").put_object(Bucket="checked", Key="k", Body=b"")


def test_why_a_buckets_policy_is_refused_is_said_in_awss_words(region: Region) -> None:
    for change, message in (
        ({"Resource": "arn:aws:s3:::another/*"}, "Policy has invalid resource"),
        ({"Condition": {"StringIsNice": {"a": "b"}}}, "Invalid Condition type : StringIsNice"),
        ({"Principal": {"AWS": "arn:aws:iam::*:root"}}, "Invalid principal in policy"),
    ):
        with pytest.raises(ClientError, match=message):
            put_on_bucket(region, json.dumps({"Version": "2012-10-17", "Statement": [{**GOOD, **change}]}))


def test_a_roles_policy_is_neither_too_large_nor_names_whom_it_is_for(region: Region) -> None:
    iam = region.client("iam")
    trust = json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}}
    )
    iam.create_role(RoleName="checked", AssumeRolePolicyDocument=trust)

    def policy(count: int, **members: Any) -> str:
        statement = {"Effect": "Allow", "Action": [f"s3:Get{n}" for n in range(count)], "Resource": "*", **members}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=20)

    def put(text: str) -> None:
        iam.put_role_policy(RoleName="checked", PolicyName="p", PolicyDocument=text)

    put(policy(600))  # white space does not count
    with pytest.raises(ClientError, match="Maximum policy size of 10240 bytes exceeded for role checked"):
        put(policy(1200))
    with pytest.raises(ClientError, match="Cannot exceed quota for PolicySize: 6144"):
        iam.create_policy(PolicyName="large", PolicyDocument=policy(600))
    with pytest.raises(ClientError, match="Cannot exceed quota for ACLSizePerRole: 2048"):
        iam.update_assume_role_policy(RoleName="checked", PolicyDocument=policy(200))
    with pytest.raises(ClientError, match="Policy document should not specify a principal"):
        put(policy(1, Principal="*"))
