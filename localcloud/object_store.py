"""S3 from inside the process: what a job's or an endpoint's set-up reads and writes, without a thousand HTTP requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend, s3_backends

from localcloud.errors import LocalCloudError, ServiceError
from localcloud.iam.needs import Need, ObjectData
from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


class ObjectUnavailable(LocalCloudError):
    """Indicates that an S3 object cannot be had."""


class ObjectNotFound(ObjectUnavailable):
    """Indicates that an S3 URI names no bucket or no object."""


class ObjectAccessDenied(ObjectUnavailable):
    """Indicates that a role may not do with S3 what it tried."""


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` into bucket and key (which may be empty).

    Raises:
        ObjectNotFound: It is not an S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ObjectNotFound(f"'{uri}' is not an S3 URI (s3://bucket/key)")
    return bucket, key


class ObjectStore:
    """The region's S3 objects.

    Args:
        cloud: The region.
        session: The role that looks at them; None for the region itself, which may do everything.
    """

    def __init__(self, cloud: Cloud, session: RoleSession | None = None) -> None:
        self._cloud = cloud
        self._session = session

    def acting_as(self, role_arn: str, session_name: str) -> ObjectStore:
        """Return the objects as a role sees them: what it may not do raises ObjectAccessDenied."""
        return ObjectStore(self._cloud, RoleSession(role_arn, session_name))

    def _check(self, action: str, resource: str, data: ObjectData | None = None, **keys: str) -> None:
        if self._session is None:
            return
        need = Need(f"s3:{action}", f"arn:aws:s3:::{resource}", {f"s3:{key}": (value,) for key, value in keys.items()}, data)
        try:
            self._cloud.iam.check(self._session, need)
        except ServiceError as error:
            raise ObjectAccessDenied(error.message) from error

    @property
    def _backend(self) -> S3Backend:
        return s3_backends[self._cloud.settings.account_id]["aws"]

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys that start with *prefix*, sorted.

        Raises:
            ObjectNotFound: There is no such bucket.
            ObjectAccessDenied: The role may not list it.
        """
        self._check("ListBucket", bucket, prefix=prefix)
        try:
            found = self._backend.get_bucket(bucket).keys
        except S3ClientError as error:
            raise ObjectNotFound(f"The S3 bucket '{bucket}' does not exist") from error
        return sorted(key for key in list(found) if key.startswith(prefix))

    def read(self, uri: str, version: str | None = None) -> bytes:
        """Return one object's bytes, of one of its versions if that is named.

        Raises:
            ObjectNotFound: There is no such object or version.
            ObjectAccessDenied: The role may not read it.
        """
        bucket, key = parse_s3_uri(uri)
        self._check("GetObjectVersion" if version else "GetObject", f"{bucket}/{key}", ObjectData("read", version=version))
        try:
            found = self._backend.get_object(bucket, key, version_id=version)
        except S3ClientError as error:
            raise ObjectNotFound(f"The S3 bucket '{bucket}' does not exist") from error
        if found is None:
            raise ObjectNotFound(f"No S3 object at {uri}")
        return found.value

    def write(self, uri: str, body: bytes) -> None:
        """Create or replace one object; its bucket's notifications fire.

        Raises:
            ObjectNotFound: There is no such bucket.
            ObjectAccessDenied: The role may not write it.
        """
        bucket, key = parse_s3_uri(uri)
        self._check("PutObject", f"{bucket}/{key}", ObjectData("write"))
        try:
            self._backend.put_object(bucket, key, body)
        except S3ClientError as error:
            raise ObjectNotFound(f"The S3 bucket '{bucket}' does not exist") from error
        self._cloud.mark_dirty("s3")

    def download(self, uri: str, target: Path) -> int:
        """Copy what a SageMaker ``S3Prefix`` names into the folder *target* and return the number of files.

        As SageMaker does: every object whose key starts with the prefix; the part after the prefix's last "/" is the path below *target*.

        Raises:
            ObjectNotFound: Nothing starts with the prefix.
            ObjectAccessDenied: The role may not list or read it.
        """
        bucket, prefix = parse_s3_uri(uri)
        keys = [key for key in self.keys(bucket, prefix) if not key.endswith("/")]
        # s3://b/data also matches s3://b/database on AWS; an exact object or a folder is what people mean, and what SageMaker gives for those.
        exact = [key for key in keys if key == prefix or key.startswith(prefix.rstrip("/") + "/") or not prefix]
        keys = exact or keys
        if not keys:
            raise ObjectNotFound(f"No S3 objects found under S3 URL '{uri}'")
        base = prefix if prefix.endswith("/") or not prefix else (prefix.rpartition("/")[0] + "/" if keys == [prefix] else prefix + "/")
        target.mkdir(parents=True, exist_ok=True)
        for key in keys:
            relative = key[len(base) :] if key.startswith(base) else key.rpartition("/")[2]
            path = target / relative
            if not path.resolve().is_relative_to(target.resolve()):
                raise ObjectNotFound(f"The key '{key}' leaves the folder that it is downloaded to")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(f"s3://{bucket}/{key}"))
        return len(keys)

    def upload(self, source: Path, uri: str) -> int:
        """Copy every file below the folder *source* to the prefix *uri* and return their number."""
        count = 0
        for folder, _, names in os.walk(source):
            for name in sorted(names):
                path = Path(folder) / name
                self.write(f"{uri.rstrip('/')}/{path.relative_to(source).as_posix()}", path.read_bytes())
                count += 1
        return count
