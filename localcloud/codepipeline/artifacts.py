"""Artifacts: where they are in the artifact store, and what is in their zips."""

from __future__ import annotations

import io
import secrets
import string
import zipfile
from dataclasses import dataclass
from typing import Any

_ALPHANUMERIC = string.ascii_letters + string.digits


class ArtifactError(Exception):
    """Indicates that an artifact is no zip, or does not have a file."""


@dataclass(frozen=True)
class Artifact:
    """One artifact's object.

    Attributes:
        bucket: The artifact store.
        key: Its key there.
    """

    bucket: str
    key: str


def artifact_key(pipeline: str, artifact: str) -> str:
    """Return a new key, as CodePipeline lays them out: the names are cut to 20 and 10 characters, so that policies must match by prefix of those."""
    return f"{pipeline[:20]}/{artifact[:10]}/{''.join(secrets.choice(_ALPHANUMERIC) for _ in range(7))}"


def read_file(archive: bytes, name: str, artifact: str) -> str:
    """Return one text file of an artifact.

    Raises:
        ArtifactError: The artifact is no zip, has no such file, or the file is no UTF-8 text.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return opened.read(name).decode()
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"Unable to read the artifact {artifact}: it is not a zip file") from error
    except KeyError as error:
        raise ArtifactError(f"File [{name}] does not exist in artifact [{artifact}]") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"File [{name}] in artifact [{artifact}] is not UTF-8 text") from error


def zip_files(files: dict[str, str]) -> bytes:
    """Return a zip of text files by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def encryption(store: dict[str, Any]) -> dict[str, str]:
    """Return PutObject's members with which CodePipeline encrypts in an artifact store: by the store's key, or the account's for S3."""
    key = store.get("encryptionKey")
    return {"ServerSideEncryption": "aws:kms"} | ({"SSEKMSKeyId": key["id"]} if key else {})
