"""What the templates refer to, as files named by their digest: Lambda zips, the state machine's definition, the inference template.

The same sources make the same bytes, and so the same keys: deploying twice uploads nothing and changes nothing.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.templates import MAX_BODY_BYTES, template_body

ROOT = Path(__file__).resolve().parent.parent
PLATFORM_TEMPLATE = ROOT / "infrastructure" / "platform.yaml"
INFERENCE_TEMPLATE = ROOT / "infrastructure" / "inference.yaml"
WORKFLOW_DEFINITION = ROOT / "stepfunctions" / "classify.asl.json"

# What AWS's Python runtime lacks. boto3 it has.
VENDORED = ("aws-lambda-powertools", "jmespath", "typing_extensions")
# Powertools' utilities bring 4 MB of which the Logger imports one file; `test_packaging` imports every handler from its zip alone.
_UNUSED = (
    "aws_lambda_powertools/event_handler/",
    "aws_lambda_powertools/utilities/",
    "aws_lambda_powertools/metrics/provider/datadog/",
    "aws_lambda_powertools/logging/formatters/",
)
_USED_ALL_THE_SAME = ("aws_lambda_powertools/utilities/__init__.py", "aws_lambda_powertools/utilities/jmespath_utils/")
# The earliest time that a zip can hold, for all entries: file times differ between clones.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_UPLOAD_THREADS = 4


class PackagingError(Exception):
    """Indicates that something which belongs into a zip is not there."""


class Function(StrEnum):
    """The functions: folders in `lambdas/`."""

    SERIALIZE_IMAGE_DATA = "serialize_image_data"
    IMAGE_CLASSIFICATION = "image_classification"
    FILTER_LOW_CONFIDENCE_INFERENCES = "filter_low_confidence_inferences"
    SMOKE_TEST = "smoke_test"
    DEPLOY_INFERENCE_WORKFLOW = "deploy_inference_workflow"


@dataclass(frozen=True)
class Asset:
    """A file for the artifact bucket. Its key holds its digest, so that a key's content never changes."""

    key: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The digest of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Assets:
    """All that the two templates refer to."""

    functions: Mapping[Function, Asset]
    workflow_definition: Asset
    inference_template: Asset

    def __iter__(self) -> Iterator[Asset]:
        yield from self.functions.values()
        yield self.workflow_definition
        yield self.inference_template


def build_assets() -> Assets:
    """Builds everything from the sources beside this package and the installed Powertools.

    Raises:
        PackagingError: Powertools or one of its dependencies is not installed.
    """
    vendored = _vendored_files()
    functions = {function: _function_asset(function, vendored) for function in Function}
    return Assets(
        functions,
        _digested("code/stepfunctions/classify", ".asl.json", WORKFLOW_DEFINITION.read_bytes()),
        _digested("code/templates/inference", ".yaml", INFERENCE_TEMPLATE.read_bytes()),
    )


def write_assets(assets: Assets, folder: Path) -> None:
    """Writes the files below a folder under their keys, so that one build packages and another deploys what was packaged."""
    for asset in assets:
        path = folder / asset.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asset.data)


def read_assets(folder: Path) -> Assets:
    """Reads what `write_assets` wrote.

    Raises:
        PackagingError: a file is missing, there are several in its place, or its content is not what its name says.
    """
    functions = {function: _packaged(folder, f"code/lambdas/{function}", ".zip") for function in Function}
    return Assets(
        functions, _packaged(folder, "code/stepfunctions/classify", ".asl.json"), _packaged(folder, "code/templates/inference", ".yaml")
    )


def _packaged(folder: Path, prefix: str, suffix: str) -> Asset:
    found = sorted((folder / prefix).glob(f"*{suffix}"))
    if len(found) != 1:
        there = f"{len(found)} files" if found else "no file"
        raise PackagingError(
            f"The package {folder} has {there} {prefix}/*{suffix}, where one belongs. Make it anew: scones aws package {folder}"
        )
    asset = Asset(f"{prefix}/{found[0].name}", found[0].read_bytes())
    if found[0].name != f"{asset.sha256}{suffix}":
        raise PackagingError(
            f"The file {found[0]} is not what its name says: it was changed or is damaged. Make it anew: scones aws package {folder}"
        )
    return asset


def upload_assets(s3_client: Any, bucket: str, assets: Assets) -> Sequence[str]:
    """Uploads what the bucket does not have yet, in parallel. Returns the keys that were uploaded.

    Raises:
        botocore.exceptions.ClientError: S3 refused.
    """
    missing = missing_assets(s3_client, bucket, assets)
    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        list(pool.map(lambda asset: s3_client.put_object(Bucket=bucket, Key=asset.key, Body=asset.data), missing))
    return [asset.key for asset in missing]


def template_source(path: Path, s3_client: Any, bucket: str) -> dict[str, str]:
    """Returns how CloudFormation gets a template: in the request, or from the bucket, where one that is too long for a request is put.

    Raises:
        botocore.exceptions.ClientError: S3 refused.
    """
    body = template_body(path)
    if len(body.encode()) <= MAX_BODY_BYTES:
        return {"TemplateBody": body}
    asset = _digested(f"code/templates/{path.stem}", path.suffix, path.read_bytes())
    if not _exists(s3_client, bucket, asset.key):
        s3_client.put_object(Bucket=bucket, Key=asset.key, Body=asset.data)
    region = s3_client.meta.region_name
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    # CloudFormation knows S3 by this address, whichever way this program reaches it.
    return {"TemplateURL": f"https://{bucket}.s3.{region}.{suffix}/{asset.key}"}


def missing_assets(s3_client: Any, bucket: str, assets: Assets) -> Sequence[Asset]:
    """Returns what the bucket does not have yet.

    Raises:
        botocore.exceptions.ClientError: S3 refused.
    """
    return [asset for asset in assets if not _exists(s3_client, bucket, asset.key)]


def build_zip(files: Mapping[str, bytes]) -> bytes:
    """Packs files, by their path in the archive, into a zip whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _ZIP_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            # Lambda runs as another user than the one that unpacks.
            info.external_attr = 0o100644 << 16
            archive.writestr(info, files[path])
    return buffer.getvalue()


def _function_asset(function: Function, vendored: Mapping[str, bytes]) -> Asset:
    own = (
        _sources(f"lambdas/{function}") | _sources("lambdas/common") | {"lambdas/__init__.py": (ROOT / "lambdas/__init__.py").read_bytes()}
    )
    return _digested(f"code/lambdas/{function}/", ".zip", build_zip({**vendored, **own}))


def _sources(folder: str) -> dict[str, bytes]:
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted((ROOT / folder).rglob("*.py"))}


def _vendored_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name in VENDORED:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise PackagingError(
                f"The package {name} goes into the Lambda functions' zips and is not installed: pip install {name}"
            ) from error
        for file in distribution.files or ():
            if _is_vendored(file):
                files[file.as_posix()] = Path(str(distribution.locate_file(file))).read_bytes()
    return files


def _is_vendored(file: PurePosixPath) -> bool:
    path = file.as_posix()
    if file.suffix != ".py" or ".." in file.parts:
        return False
    return path.startswith(_USED_ALL_THE_SAME) or not path.startswith(_UNUSED)


def _digested(prefix: str, suffix: str, data: bytes) -> Asset:
    digest = hashlib.sha256(data).hexdigest()
    return Asset(f"{prefix}{'' if prefix.endswith('/') else '/'}{digest}{suffix}", data)


def _exists(s3_client: Any, bucket: str, key: str) -> bool:
    try:
        s3_client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    return True
