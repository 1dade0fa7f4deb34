"""The sample payload of a registered model: what SageMaker's Inference Recommender sends to an endpoint that it load-tests."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib

from pipelines.code_store import CodeBundle

SIDE = 128


def sample_payload() -> CodeBundle:
    """A bundle with ``sample_payload.tar.gz``, which holds one PNG of 128 x 128 pixels; always the same bytes.

    https://docs.aws.amazon.com/sagemaker/latest/dg/inference-recommender-prerequisites.html asks for a gzip-compressed tar archive of files
    that are valid requests.
    """
    image = _png(SIDE)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("sample.png")
        entry.size = len(image)
        tar.addfile(entry, io.BytesIO(image))
    return CodeBundle({"sample_payload.tar.gz": gzip.compress(archive.getvalue(), mtime=0)})


def _png(side: int) -> bytes:
    """A colour gradient as an 8-bit RGB PNG (https://www.w3.org/TR/png/)."""
    rows = b"".join(b"\0" + bytes(value for x in range(side) for value in (255 * x // side, 255 * y // side, 128)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
