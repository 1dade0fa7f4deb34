"""What a build is started with by whoever starts it inside the region (CodePipeline)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class S3Object:
    """An object, to be read or to be written.

    Attributes:
        bucket: Its bucket.
        key: Its key.
        version: The version to be read; None for the newest.
    """

    bucket: str
    key: str
    version: str | None = None

    @property
    def uri(self) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def arn(self) -> str:
        """Return the object's ARN."""
        return f"arn:aws:s3:::{self.bucket}/{self.key}"


@dataclass(frozen=True)
class EnvironmentVariable:
    """A variable of a build.

    Attributes:
        name: Its name.
        value: Its value; for the other types the name of the parameter, or the secret's ``id:key:stage:version``.
        type: ``PLAINTEXT``, ``PARAMETER_STORE`` or ``SECRETS_MANAGER``.
    """

    name: str
    value: str
    type: str = "PLAINTEXT"
