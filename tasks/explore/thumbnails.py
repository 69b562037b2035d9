"""Thumbnails: a sample's picture as the model sees it, scaled down, out of its shard by one ranged read.

What is sent was always written here: no byte of a stranger's file reaches the browser. Small pictures become PNG, pixel
for pixel; larger ones JPEG.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.pool.decoding import decode
from tasks.pool.samples import read_sample

SIZES = (64, 128, 256, 512, 1024)
"""Pixels of the longer side."""
SMALL = 96
"""Pixels of the longer side up to which a picture is kept as it is."""
QUALITY = 88


def thumbnail(row: Mapping[str, Any], root: Path, size: int) -> tuple[bytes, str]:
    """A picture of at most `size` pixels a side, and its media type; raises UserError where it cannot be had."""
    return made(read_sample(row, root), size)


def made(data: bytes, size: int) -> tuple[bytes, str]:
    """A file's picture anew, and its media type."""
    image, buffer = decode(data).image, io.BytesIO()
    image.thumbnail((size, size))
    if max(image.size) <= SMALL:
        image.save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), "image/jpeg"
