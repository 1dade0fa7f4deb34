"""The key with which S3 encrypts an object, kept as it was when the object was written: what moto does not get right of it.

Held by tests/integration/test_contract_s3.py.
"""

from __future__ import annotations

from typing import Any

from moto.s3.models import FakeKey, FakeMultipart, S3Backend

from localcloud.iam.keys import applied_encryption, key_arn

_put_object = S3Backend.put_object
_copy_object = S3Backend.copy_object
_create_multipart_upload = S3Backend.create_multipart_upload


def record_object_keys(account: str, region: str) -> None:
    """Let S3 record the key's ARN, the bucket's encryption when an upload starts, and not the bucket's key for what is to have AWS's; once more does nothing."""

    def encryption(backend: S3Backend, bucket: str, algorithm: str | None, key: str | None) -> tuple[str | None, str | None]:
        algorithm, key = applied_encryption(backend.get_bucket(bucket), algorithm, key)
        if algorithm is None or not algorithm.startswith("aws:kms"):
            return algorithm, None
        # Who asks for KMS and names no key gets AWS's (https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html).
        return algorithm, key_arn(account, region, key or "alias/aws/s3")

    def put_object(self: S3Backend, bucket_name: str, key_name: str, value: bytes, *args: Any, **more: Any) -> FakeKey:
        more["encryption"], more["kms_key_id"] = encryption(self, bucket_name, more.get("encryption"), more.get("kms_key_id"))
        return _put_object(self, bucket_name, key_name, value, *args, **more)

    def copy_object(self: S3Backend, src_key: FakeKey, dest_bucket_name: str, dest_key_name: str, *args: Any, **more: Any) -> None:
        if self.get_bucket(dest_bucket_name).encryption:
            # moto takes a copy of an object onto itself for one that is to be without a key.
            more["encryption"], more["kms_key_id"] = encryption(self, dest_bucket_name, more.get("encryption"), more.get("kms_key_id"))
        _copy_object(self, src_key, dest_bucket_name, dest_key_name, *args, **more)

    def create_multipart_upload(self: S3Backend, bucket_name: str, *args: Any) -> FakeMultipart:
        algorithm, key = encryption(self, bucket_name, *args[-2:])
        return _create_multipart_upload(self, bucket_name, *args[:-2], algorithm, key)  # type: ignore[call-arg]  # mypy counts what is in args

    for method in (put_object, copy_object, create_multipart_upload):
        setattr(S3Backend, method.__name__, method)
