"""Decoding: the pixels of an encoded picture, by one rule for pool, targets, tests, evaluation and report.

Everything becomes RGB of 8 bits, as Pillow's `convert("RGB")` makes it, which is what open_clip's loader (and with it
DataComp's training and evaluation) and clip_benchmark do:

* pixels as they are stored: EXIF orientation is not applied (img2dataset reads files without it too, and what it writes
  anew has none);
* transparency is dropped, not blended: what shows is the colour under it, whatever that is;
* of an animation the first frame; ICC profiles are ignored; CMYK goes by Pillow's formula, Adobe's inversion undone;
* grey of 16 bits is one difference: Pillow cuts it off at 255, which leaves little but black and white. Here its high
  byte counts, as in colours of 16 bits.

A picture is a JPEG, PNG or WebP file that decodes to its last pixel and has at most Pillow's limit of pixels (179
million, against decompression bombs); anything else raises PictureError.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mgd_core.errors import UserError

VERSION = 2  # changes whenever equal bytes would give other pixels than before
# A JPEG with several pictures in it (phones write them) calls itself MPO; the first picture is a plain JPEG.
FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
WIDE_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
LARGE = 1 << 26
"""Pixels of a picture scaled whole, beyond which only the part that stays is made."""
# From half the limit on Pillow warns; the limit itself is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(UserError, ValueError):
    """Bytes that are no picture that can be used; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: RGB, and what its file was: jpg, png or webp."""

    image: Image.Image
    format: str

    @property
    def digest(self) -> bytes:
        """blake2b-128 of its size and pixels: the same for every file that shows the same."""
        return pixel_digest(self.image)


def decode(data: bytes) -> Picture:
    """The picture in a file's bytes; raises PictureError."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            return Picture(in_rgb(image), FORMATS[image.format or ""])
    except UnidentifiedImageError as error:
        raise PictureError("not a JPEG, PNG or WebP picture") from error
    except PictureError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each means the same here
        # Memory addresses in a message would make two runs' tables differ.
        raise PictureError(ADDRESS.sub("", f"{type(error).__name__}: {error}")) from error


def in_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, itself where it is that; raises PictureError where its numbers are not of 8 or 16
    bits."""
    if image.mode == "RGB":
        image.load()  # what was only opened is read to its last pixel; `convert` would copy them all once more
        return image
    if image.mode in WIDE_GREY:
        image = Image.fromarray(_high_bytes(image))
    elif image.mode == "F":
        raise PictureError("its pixels are fractions; a picture has whole numbers of 8 or 16 bits")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # the same colours as at once, but Pillow warns of lost transparency there
    return image.convert("RGB")


def resized(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """RGB pixels (3, size, size): shorter side to ``size`` (bicubic), centre crop, to the pixel as open_clip's
    evaluation does (to rounding, where the sides are so far apart that scaling the whole would fill the memory)."""
    image = in_rgb(image)
    if image.size != (size, size):
        shorter = min(image.size)
        width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        if width * height > LARGE:
            x, y = image.width / width, image.height / height
            part = (left * x, top * y, (left + size) * x, (top + size) * y)
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=part)
        else:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).transpose(2, 0, 1)


def pixel_digest(image: Image.Image) -> bytes:
    """blake2b-128 of a picture's size and RGB pixels, 16 bytes."""
    rgb = in_rgb(image)
    return blake2b(repr(rgb.size).encode() + rgb.tobytes(), digest_size=16).digest()


def _high_bytes(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 0xFFFF:
        raise PictureError(f"its pixels are {values.min()} to {values.max()}; a picture has 8 or 16 bits")
    return (values >> 8).astype(np.uint8)
