"""The sample payload of a model version: a request that its endpoint must be able to answer."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import Any

from lambdas.common.errors import WorkflowError
from lambdas.common.images import ImageAddress, detect_content_type, read_image
from lambdas.smoke_test.errors import SmokeTestError

MAX_ARCHIVE_BYTES = 10_000_000
MAX_IMAGE_BYTES = 4_000_000


@dataclass(frozen=True)
class SamplePayload:
    """An encoded image."""

    data: bytes
    content_type: str

    @property
    def key(self) -> str:
        """Where it is kept for the workflow to read; the same image always has the same key."""
        return f"smoke-test/{hashlib.sha256(self.data).hexdigest()}"


def read_sample_payload(sagemaker: Any, s3: Any, model_package_arn: str) -> SamplePayload:
    """Reads the first image in the archive that the version was registered with (`SamplePayloadUrl`).

    Raises:
        SmokeTestError: the version has none, or it is no archive with an image.
    """
    url = sagemaker.describe_model_package(ModelPackageName=model_package_arn).get("SamplePayloadUrl", "")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not key:
        raise SmokeTestError(
            f"The version cannot be tried: it was registered without a sample payload (SamplePayloadUrl: {url or 'none'}). "
            "Register it with the pipeline, which adds one."
        )
    try:
        archive = read_image(s3, ImageAddress(bucket, key), MAX_ARCHIVE_BYTES).data
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            for member in files:
                if member.isfile() and 0 < member.size <= MAX_IMAGE_BYTES:
                    content = files.extractfile(member)
                    data = b"" if content is None else content.read()
                    return SamplePayload(data, detect_content_type(data))
    except (WorkflowError, tarfile.TarError, EOFError, OSError) as error:
        raise SmokeTestError(f"The version's sample payload {url} cannot be read: {error}") from error
    raise SmokeTestError(f"The version's sample payload {url} holds no file of 1 to {MAX_IMAGE_BYTES:,} bytes.")
