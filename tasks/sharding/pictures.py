"""Pictures made ready for a shard: checked to their last pixel, resized and written anew where that is asked for.

What a picture is, and what becomes of orientation, transparency, palettes, 16 bits, CMYK and animations,
`pool.decoding` settles, the same on every way in. Resizing is img2dataset's, with Pillow's filters of the same names:
areas are averaged on the way down (box), Lanczos on the way up. A picture that need not change keeps its bytes.

Cost: one decode a picture; where it is written anew, one encode.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from PIL import ExifTags, Image

from tasks.pool.validation import Rejected, picture_of
from tasks.sharding.options import ShardOptions

PILLOW = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
QUALITY = {"jpg": 95, "png": 6, "webp": 95}
WHITE = (255, 255, 255)
LONGEST_EXIF = 200
"""Characters of a value that are kept."""


@dataclass(frozen=True)
class Made:
    """A picture as it goes into the shard, and what is told of it; sizes are (width, height) in pixels."""

    data: bytes
    format: str
    size: tuple[int, int]
    original_size: tuple[int, int]
    exif: str


def made(data: bytes, options: ShardOptions) -> Made:
    """A file's bytes as a picture of the shard; raises Rejected, in img2dataset's words where it has any."""
    picture = picture_of(data)
    image, size = picture.image, picture.image.size
    if min(size) < options.min_image_size:
        raise Rejected("image too small", f"{size[0]} x {size[1]}")
    if options.max_aspect_ratio is not None and max(size) > options.max_aspect_ratio * min(size):
        raise Rejected("aspect ratio too large", f"{size[0]} x {size[1]}")
    image = resized(image, options)
    form = options.encode_format or (picture.format if image is picture.image else "jpg")
    if image is not picture.image or form != picture.format or options.encode_quality is not None:
        written = encoded(image, form, options.encode_quality)
    else:
        written = data
    return Made(written, form, image.size, size, exif_of(data))


def resized(image: Image.Image, options: ShardOptions) -> Image.Image:
    """The picture in the size that the options ask for; itself where that is its own."""
    side = options.image_size
    if side is None:
        return image
    by_longest = options.resize_mode in ("keep_ratio_largest", "border")
    measure = max(image.size) if by_longest else min(image.size)
    if measure == side or (measure < side and options.resize_only_if_bigger):
        scaled = image
    else:
        width, height = (max(1, round(length * side / measure)) for length in image.size)
        scaled = image.resize((width, height), Image.Resampling.BOX if measure > side else Image.Resampling.LANCZOS)
    if measure < side and options.resize_only_if_bigger:
        return scaled
    if options.resize_mode == "center_crop" and scaled.size != (side, side):
        left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
        return scaled.crop((left, top, left + side, top + side))
    if options.resize_mode == "border" and scaled.size != (side, side):
        square = Image.new("RGB", (side, side), WHITE)
        square.paste(scaled, ((side - scaled.width) // 2, (side - scaled.height) // 2))
        return square
    return scaled


def encoded(image: Image.Image, form: str, quality: int | None) -> bytes:
    """A picture's file, without metadata."""
    buffer = io.BytesIO()
    image.info.clear()  # comments and colour profiles would be written too
    quality = QUALITY[form] if quality is None else quality
    how = {"compress_level": quality} if form == "png" else {"quality": quality}
    try:
        image.save(buffer, PILLOW[form], **how)
    except (OSError, ValueError, MemoryError) as error:  # sides beyond what the format holds
        raise Rejected("not encodable", f"{image.width} x {image.height} as {form}: {error}") from error
    return buffer.getvalue()


def exif_of(data: bytes) -> str:
    """What a camera noted, as the text of a JSON object; `{}` where there is nothing."""
    if b"Exif" not in data[: 1 << 16] and b"eXIf" not in data:
        return "{}"
    try:
        found = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")).getexif()
        named = {ExifTags.TAGS.get(tag, str(tag)): str(value)[:LONGEST_EXIF] for tag, value in found.items()}
        text = json.dumps(named, sort_keys=True)
    except Exception:  # a stranger's bytes; a note that cannot be read is none
        return "{}"
    return text
