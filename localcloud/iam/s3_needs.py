"""What S3's operations need: their names are not those of the actions."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from localcloud.iam.needs import Need, Params, tag_keys

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
    ):
        if params.get(member):
            keys[key] = (str(params[member]),)
    keys |= tag_keys(params)
    names = [params["Key"]] if params.get("Key") else [item["Key"] for item in (params.get("Delete") or {}).get("Objects", [])]
    for resource in [f"{bucket}/{name}" for name in names] or [bucket]:
        yield Need(action, resource, keys)
    source = params.get("CopySource")
    if source:
        path = source if isinstance(source, str) else f"{source['Bucket']}/{source['Key']}"
        yield Need("s3:GetObject", f"arn:aws:s3:::{unquote(path.partition('?')[0]).removeprefix('/')}")
