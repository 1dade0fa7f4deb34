"""A picture that shows many images at a glance."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

_COLUMNS = 8
_TILE = 64
_GAP = 2


def write_contact_sheet(images: Iterable[bytes], path: Path) -> None:
    """Write image files (their bytes) as tiles of 64 x 64 pixels, eight in a row, into a PNG."""
    tiles = []
    for content in images:
        with Image.open(io.BytesIO(content)) as image:
            # Small images grow in whole pixels' likeness rather than blurred: what one sees is what there is.
            method = Image.Resampling.NEAREST if max(image.size) < _TILE else Image.Resampling.LANCZOS
            tiles.append(ImageOps.pad(image.convert("RGB"), (_TILE, _TILE), method, color="white"))
    rows = -(-len(tiles) // _COLUMNS)
    step = _TILE + _GAP
    sheet = Image.new("RGB", (_COLUMNS * step + _GAP, max(1, rows) * step + _GAP), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP + number % _COLUMNS * step, _GAP + number // _COLUMNS * step))
    sheet.save(path, "PNG")
