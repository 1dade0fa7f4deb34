"""Source: S3. One zip in a versioned bucket.

https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-S3.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.codepipeline.actions.action import Action, ActionFailed, Job, Kind, Revision, Started, Succeeded

PROVIDER = "S3"


class S3Source(Action):
    """Takes an object, or one version of it, as the output artifact."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind(
            "Source",
            PROVIDER,
            required=frozenset(("S3Bucket", "S3ObjectKey")),
            optional=frozenset(("PollForSourceChanges", "AllowOverrideForS3ObjectKey")),
            inputs=(0, 0),
            outputs=(1, 1),
        ),
    )

    def start(self, job: Job) -> Started | Succeeded:
        """Copy the object into the artifact store."""
        client = job.clients("s3")
        bucket, key, version = job.configuration["S3Bucket"], job.configuration["S3ObjectKey"], None
        for override in job.overrides:
            if override.revision_type == "S3_OBJECT_VERSION_ID":
                version = override.value
            elif override.revision_type == "S3_OBJECT_KEY":
                if job.configuration.get("AllowOverrideForS3ObjectKey") != "true":
                    raise ActionFailed(
                        "ConfigurationError", "The S3 object key cannot be overridden: AllowOverrideForS3ObjectKey is not true."
                    )
                key = override.value
        try:
            if client.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
                raise ActionFailed(
                    "ConfigurationError", f"The Amazon S3 bucket {bucket} is not versioned. Enable versioning for the bucket."
                )
            found = client.get_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
        except ClientError as error:
            raise ActionFailed(*_explained(error, bucket, key, version)) from error
        job.write(next(iter(job.outputs.values())), found["Body"].read())
        # "For Amazon S3 buckets or actions, the user-provided content of a codepipeline-artifact-revision-summary key specified in the object
        # metadata" (https://docs.aws.amazon.com/codepipeline/latest/APIReference/API_ArtifactRevision.html).
        revision = Revision(
            found["VersionId"],
            found["Metadata"].get("codepipeline-artifact-revision-summary") or f"Amazon S3 version id: {found['VersionId']}",
            found["LastModified"],
            f"https://console.aws.amazon.com/s3/object/{bucket}/{key}?versionId={found['VersionId']}",
        )
        variables = {"BucketName": bucket, "ETag": found["ETag"].strip('"'), "ObjectKey": key, "VersionId": found["VersionId"]}
        return Succeeded(variables, revision.summary, revision.identifier, revision, revision.url)


def _explained(error: ClientError, bucket: str, key: str, version: str | None) -> tuple[str, str]:
    code = error.response["Error"]["Code"]
    if code in ("AccessDenied", "403"):
        return (
            "PermissionError",
            f"Insufficient permissions: the provided role may not read the Amazon S3 object {key} in the bucket {bucket}.",
        )
    if code == "NoSuchBucket":
        return "ConfigurationError", f"The Amazon S3 bucket {bucket} does not exist. Specify a valid bucket name."
    of = f" in version {version}" if version else ""
    return (
        "RevisionUnavailable",
        f"The Amazon S3 object {key}{of} does not exist in the bucket {bucket}. Upload it, then start the pipeline.",
    )


def current_version(clients: Any, configuration: Mapping[str, str]) -> str | None:
    """Return the version of a source action's object that is there now, or None when it cannot be seen."""
    try:
        head = clients("s3").head_object(Bucket=configuration["S3Bucket"], Key=configuration["S3ObjectKey"])
    except ClientError:
        # A bucket or an object that is not there (yet): the action itself says so when it runs.
        return None
    version: str | None = head.get("VersionId")
    return version
