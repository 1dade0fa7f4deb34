"""What S3's operations need: their names are not those of the actions."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from localcloud.iam.needs import Need, ObjectData, Params, tag_keys

#: S3: operation → action, where it is not the operation's name.
_S3_ACTIONS = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListParts": "ListMultipartUploadParts",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "UploadPartCopy": "PutObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeleteBucketTagging": "PutBucketTagging",
    "GetBucketCors": "GetBucketCORS",
    "PutBucketCors": "PutBucketCORS",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
}
_MAKING_OBJECTS = frozenset(("PutObject", "CopyObject", "CreateMultipartUpload"))
_OF_UPLOADS = frozenset(("UploadPart", "UploadPartCopy", "CompleteMultipartUpload"))
_GRANTING = ("ACL", "GrantFullControl", "GrantRead", "GrantReadACP", "GrantWriteACP")


def s3_needs(operation: str, params: Params) -> Iterator[Need]:
    """Yield what a request needs."""
    action = f"s3:{_S3_ACTIONS.get(operation, operation)}"
    if operation == "ListBuckets":
        yield Need(action, "*")
        return
    if params.get("VersionId") and operation in ("GetObject", "HeadObject", "DeleteObject", "GetObjectTagging"):
        action = action.replace("Object", "ObjectVersion")
    bucket = f"arn:aws:s3:::{params.get('Bucket', '')}"
    keys: dict[str, tuple[str, ...]] = {}
    for member, key in (
        ("Prefix", "s3:prefix"),
        ("Delimiter", "s3:delimiter"),
        ("ServerSideEncryption", "s3:x-amz-server-side-encryption"),
        ("SSEKMSKeyId", "s3:x-amz-server-side-encryption-aws-kms-key-id"),
        ("ACL", "s3:x-amz-acl"),
    ):
        if params.get(member):
            keys[key] = (str(params[member]),)
    keys |= tag_keys(params)
    deleted = (params.get("Delete") or {}).get("Objects", [])
    resource = f"{bucket}/{params['Key']}" if params.get("Key") else bucket
    for item in deleted:
        yield Need("s3:DeleteObjectVersion" if item.get("VersionId") else action, f"{bucket}/{item['Key']}", keys)
    if not deleted:
        yield Need(action, resource, keys, _data(operation, params))
    if operation in _MAKING_OBJECTS:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
        if any(params.get(member) for member in _GRANTING):
            yield Need("s3:PutObjectAcl", resource, keys)
        if params.get("Tagging"):
            yield Need("s3:PutObjectTagging", resource, keys)
    source = params.get("CopySource")
    if source:
        path, _, query = (source if isinstance(source, str) else f"{source['Bucket']}/{source['Key']}").partition("?")
        version = query.removeprefix("versionId=") if query.startswith("versionId=") else None
        read = "s3:GetObjectVersion" if version else "s3:GetObject"
        yield Need(read, f"arn:aws:s3:::{unquote(path).removeprefix('/')}", data=ObjectData("read", version=version))


def _data(operation: str, params: Params) -> ObjectData | None:
    """What an operation does with the bytes of the object that it names."""
    # What is known of an object without its bytes needs no key, but for its checksum (https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html).
    if operation == "GetObject" or (operation == "HeadObject" and params.get("ChecksumMode")):
        return ObjectData("read", version=params.get("VersionId"))
    if operation in _MAKING_OBJECTS:
        return ObjectData("write", None, params.get("ServerSideEncryption"), params.get("SSEKMSKeyId"), params.get("BucketKeyEnabled"))
    return ObjectData("part", upload=params.get("UploadId")) if operation in _OF_UPLOADS else None
