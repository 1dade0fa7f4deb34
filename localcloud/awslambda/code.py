"""The code of functions and layers: zips by content under the state folder, extracted once."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import os
import shutil
import stat
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moto.s3.exceptions import S3ClientError
from moto.s3.models import s3_backends

from localcloud.awslambda.worker import RUNTIME_PACKAGES
from localcloud.errors import LocalCloudError, ServiceError, not_supported

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_UNZIPPED_BYTES = 262_144_000
MAX_UPLOADED_BYTES = 50 << 20


@dataclass(frozen=True)
class Code:
    """A stored zip.

    Attributes:
        digest: Hex sha256 of the zip; the name under which it is stored.
        size: Bytes of the zip.
    """

    digest: str
    size: int

    @property
    def sha256_base64(self) -> str:
        """AWS's CodeSha256."""
        return base64.b64encode(bytes.fromhex(self.digest)).decode()


class CodeStore:
    """Zips and what is in them. A function keeps what it was given: later changes of an S3 object do not reach it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._folder = cloud.settings.state_dir / "lambda"
        self._lock = threading.Lock()
        self.runtime_dir = self._folder / "runtime"

    def store(self, source: dict[str, Any], operation: str) -> Code:
        """Take a zip from a request (``ZipFile``, or ``S3Bucket``, ``S3Key`` and ``S3ObjectVersion``) and keep it.

        Raises:
            ServiceError: There is none, it cannot be read, or it is no zip; with AWS's message.
        """
        if source.get("ImageUri"):
            raise not_supported("A function from a container image (ImageUri)", "InvalidParameterValueException")
        if source.get("ZipFile") is not None:
            content: bytes = source["ZipFile"]
            if len(content) > MAX_UPLOADED_BYTES:
                message = f"Request must be smaller than {MAX_UPLOADED_BYTES} bytes for the {operation} operation"
                raise ServiceError("RequestEntityTooLargeException", message)
        elif source.get("S3Bucket") and source.get("S3Key"):
            content = self._from_s3(source["S3Bucket"], source["S3Key"], source.get("S3ObjectVersion"))
        else:
            raise ServiceError("InvalidParameterValueException", "Please provide a source for function code.")
        return self.store_zip(content)

    def store_zip(self, content: bytes) -> Code:
        """Keep a zip and extract it.

        Raises:
            ServiceError: It is no zip, it is too large, or a name in it leaves the folder.
        """
        code = Code(hashlib.sha256(content).hexdigest(), len(content))
        with self._lock:
            if not self.root(code.digest).is_dir():
                self._extract(content, code.digest)
            path = self.zip_path(code.digest)
            if not path.exists():
                _write_atomically(path, content)
        return code

    def root(self, digest: str) -> Path:
        """Return the folder with the content of a stored zip."""
        return self._folder / "code" / digest

    def zip_path(self, digest: str) -> Path:
        """Return the file of a stored zip."""
        return self._folder / "zips" / f"{digest}.zip"

    def scratch(self, name: str) -> Path:
        """Return a worker's folder for temporary files."""
        return self._folder / "tmp" / name

    def bundled(self, folders: list[Path]) -> list[str]:
        """Return which packages of AWS's runtime the folders bring themselves."""
        return sorted(
            {name for name in RUNTIME_PACKAGES for folder in folders if (folder / name).is_dir() or (folder / f"{name}.py").is_file()}
        )

    def keep_only(self, digests: set[str]) -> None:
        """Delete every zip that is not in *digests*, and what workers of an earlier process left."""
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        for kind in ("code", "zips"):
            folder = self._folder / kind
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name.removesuffix(".zip") not in digests:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def prepare_runtime(self) -> None:
        """Make the folder that holds what AWS's runtime has and nothing else of this machine's site-packages.

        What a function imports beyond it must be in its zip or a layer, here as on AWS.

        Raises:
            LocalCloudError: boto3 is not installed.
        """
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
        self.runtime_dir.mkdir(parents=True)
        for name in RUNTIME_PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise LocalCloudError(f"Lambda functions need the package '{name}', which is not installed. Install boto3 again.")
            origin = Path(spec.origin)
            target = origin.parent if origin.name == "__init__.py" else origin
            (self.runtime_dir / target.name).symlink_to(target)

    def _from_s3(self, bucket: str, key: str, version: str | None) -> bytes:
        try:
            found = s3_backends[self._cloud.settings.account_id]["aws"].get_object(bucket, key, version_id=version)
        except S3ClientError as error:
            raise _get_object_error("NoSuchBucket", "The specified bucket does not exist") from error
        if found is None:
            raise _get_object_error(
                *(
                    ("NoSuchVersion", "The specified version does not exist.")
                    if version
                    else ("NoSuchKey", "The specified key does not exist.")
                )
            )
        content: bytes = found.value
        return content

    def _extract(self, content: bytes, digest: str) -> None:
        target = self.root(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix="new-"))
        try:
            _unzip(content, temporary)
            temporary.chmod(0o755)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _get_object_error(code: str, text: str) -> ServiceError:
    return ServiceError(
        "InvalidParameterValueException", f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {text}"
    )


def _unzip(content: bytes, target: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if not entries:
                raise ServiceError("InvalidParameterValueException", "Uploaded file must be a non-empty zip")
            if sum(entry.file_size for entry in entries) > MAX_UNZIPPED_BYTES:
                raise ServiceError("InvalidParameterValueException", f"Unzipped size must be smaller than {MAX_UNZIPPED_BYTES} bytes")
            for entry in entries:
                mode = entry.external_attr >> 16
                if stat.S_ISLNK(mode):
                    _extract_link(archive.read(entry).decode(), target / entry.filename, target)
                    continue
                path = Path(archive.extract(entry, target))
                # On AWS a file that others may not read fails the function; here its owner runs it, so the bits are kept as they are, but never less.
                if mode and not entry.is_dir():
                    path.chmod(stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IWUSR)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, RuntimeError) as error:
        raise ServiceError(
            "InvalidParameterValueException", "Could not unzip uploaded file. Please check your file, then try to upload again."
        ) from error


def _extract_link(destination: str, link: Path, root: Path) -> None:
    if not (link.parent / destination).resolve().is_relative_to(root.resolve()):
        raise ServiceError(
            "InvalidParameterValueException", "Could not unzip uploaded file. Please check your file, then try to upload again."
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(destination)


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
