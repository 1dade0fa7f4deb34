"""The seams into moto's S3: bucket policies with conditions, and the keys of objects."""

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


def test_an_objects_key_is_what_it_was_written_with(region: Any) -> None:
    """moto takes the bucket's key for any request that names none, and a copy onto itself for one without a key."""
    s3, key = region.client("s3"), region.client("kms").create_key()["KeyMetadata"]
    region.client("kms").create_alias(AliasName="alias/of-bucket", TargetKeyId=key["KeyId"])
    s3.create_bucket(Bucket="keys")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/of-bucket"}}
    s3.put_bucket_encryption(Bucket="keys", ServerSideEncryptionConfiguration={"Rules": [rule]})

    def kept(name: str) -> tuple[str, str | None]:
        found = s3.head_object(Bucket="keys", Key=name)
        return found["ServerSideEncryption"], found.get("SSEKMSKeyId")

    s3.put_object(Bucket="keys", Key="a", Body=b"x")
    assert kept("a") == ("aws:kms", key["Arn"])
    s3.copy_object(Bucket="keys", Key="a", CopySource="keys/a", MetadataDirective="REPLACE", Metadata={"m": "1"})
    assert kept("a") == ("aws:kms", key["Arn"])
    s3.put_object(Bucket="keys", Key="b", Body=b"x", ServerSideEncryption="AES256")
    assert kept("b") == ("AES256", None)
    s3.put_object(Bucket="keys", Key="c", Body=b"x", ServerSideEncryption="aws:kms")
    assert kept("c") == ("aws:kms", "arn:aws:kms:us-east-1:123456789012:alias/aws/s3")
    upload = {"Bucket": "keys", "Key": "d", "UploadId": s3.create_multipart_upload(Bucket="keys", Key="d")["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    s3.put_bucket_encryption(
        Bucket="keys",
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]},
    )
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    assert kept("d") == ("aws:kms", key["Arn"])
