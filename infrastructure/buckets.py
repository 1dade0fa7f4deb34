"""Emptying a versioned bucket, which CloudFormation does not delete before that."""

from typing import Any

from botocore.exceptions import ClientError

from lambdas.deploy_inference_workflow.errors import DeploymentError
from lambdas.deploy_inference_workflow.retirement import is_gone

_KEYS_PER_REQUEST = 1000


def empty_bucket(s3: Any, bucket: str) -> int:
    """Deletes every version, delete marker and unfinished upload; returns how many objects and versions. One that is gone is empty.

    Args:
        s3: a boto3 client.
        bucket: its name.

    Raises:
        DeploymentError: something in it cannot be deleted.
    """
    deleted = 0
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, MaxKeys=_KEYS_PER_REQUEST):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            if found:
                objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                for failed in answer.get("Errors", ()):
                    raise DeploymentError(f"s3://{bucket}/{failed['Key']} cannot be deleted: {failed['Code']}: {failed['Message']}")
                deleted += len(found)
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", ()):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except ClientError as error:
        if not is_gone(error):
            raise
    return deleted
