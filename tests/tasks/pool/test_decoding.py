"""Decoding: a picture of any mode has the same pixels in pool, target, evaluation and report, by one rule."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.catalog.target_options import PartsOptions, TaskOptions
from tasks.evaluation.encoders import OpenClipEncoder
from tasks.modality.pairs.pairs import load_pairs
from tasks.modality.pairs.set_targets import load_part
from tasks.pool.decoding import PictureError, decode, in_rgb, resized
from tasks.pool.pools import BuildOptions, build_pool
from tasks.pool.shards import Sample, write_shard
from tasks.pool.sheets import open_sheet
from tasks.report.contact_sheets import picture_url
from testing.eval_set_files import write_set
from testing.small_catalog import small_catalog

SIDE = 12
GREY16 = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 455  # 0 to 65,065
COLOUR = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
TURNED = 6  # EXIF: a quarter turn is due


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return exif


def deep_png(channels: int) -> bytes:
    """16 bits a channel: grey, grey with alpha, RGB or RGBA; high bytes 0, 1, 2, ..., low bytes 255."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    values = [(i % 256) << 8 | 255 for i in range(SIDE * SIDE * channels)]
    width = SIDE * channels
    rows = b"".join(b"\0" + struct.pack(f">{width}H", *values[y * width : (y + 1) * width]) for y in range(SIDE))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def high_bytes(channels: int) -> np.ndarray:
    values = np.arange(SIDE * SIDE * channels).reshape(SIDE, SIDE, channels) % 256
    return (values[..., :3] if channels >= 3 else values[..., :1].repeat(3, 2)).astype(np.uint8)


def rgba() -> Image.Image:
    alpha = np.zeros((SIDE, SIDE, 1), np.uint8)
    alpha[:4] = 128
    return Image.fromarray(np.concatenate([COLOUR, alpha], 2))


def frames(form: str) -> bytes:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    return saved(first, form, save_all=True, append_images=[second], duration=100, **lossless(form))


def lossless(form: str) -> dict[str, Any]:
    return {"lossless": True} if form == "WEBP" else {}


BITS = Image.fromarray(COLOUR).convert("1")
PALETTE = Image.fromarray(COLOUR).quantize(16)
CMYK = saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95)
PICTURES: dict[str, tuple[bytes, np.ndarray]] = {
    "grey of 16 bits": (saved(Image.fromarray(GREY16), "PNG"), (GREY16 >> 8).astype(np.uint8)[..., None].repeat(3, 2)),
    "grey of 16 bits with alpha": (deep_png(2), high_bytes(2)),
    "colours of 16 bits": (deep_png(3), high_bytes(3)),
    "colours of 16 bits with alpha": (deep_png(4), high_bytes(4)),
    "colours under transparency": (saved(rgba(), "PNG"), COLOUR),
    "the same as WebP": (saved(rgba(), "WEBP", lossless=True, exact=True), COLOUR),
    "grey with alpha": (saved(rgba().convert("LA"), "PNG"), np.asarray(rgba().convert("L").convert("RGB"))),
    "a palette": (saved(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "a transparent palette": (saved(PALETTE, "PNG", transparency=bytes(16)), np.asarray(PALETTE.convert("RGB"))),
    "one bit": (saved(BITS, "PNG"), np.asarray(BITS.convert("RGB"))),
    "turned by EXIF": (saved(Image.fromarray(COLOUR), "PNG", exif=turned()), COLOUR),
    "turned by EXIF, WebP": (saved(Image.fromarray(COLOUR), "WEBP", lossless=True, exif=turned()), COLOUR),
    "an animated WebP": (frames("WEBP"), COLOUR),
    "an animated PNG": (frames("PNG"), COLOUR),
    "CMYK, inverted by Adobe": (CMYK, np.asarray(Image.open(io.BytesIO(CMYK)).convert("RGB"))),
}  # fmt: skip
BROKEN = {
    "cut": saved(Image.fromarray(COLOUR), "PNG")[:200],
    "a GIF": saved(Image.fromarray(COLOUR), "GIF"),
    "a TIFF of fractions": saved(Image.fromarray(COLOUR[..., 0].astype(np.float32)), "TIFF"),
    "no pixels": deep_png(1).replace(struct.pack(">II", SIDE, SIDE), struct.pack(">II", 0, SIDE)),
    "a bomb": b"\x89PNG\r\n\x1a\n"
    + (lambda h: struct.pack(">I", 13) + h + struct.pack(">I", zlib.crc32(h)))(
        b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_decodes_by_the_rule(name: str) -> None:
    data, expected = PICTURES[name]
    np.testing.assert_array_equal(np.asarray(decode(data).image), expected)


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "grey of 16 bits"])
def test_open_clip_and_clip_benchmark_see_the_same(name: str) -> None:
    """They convert to RGB, and no more; grey of 16 bits alone is another here."""
    data, _ = PICTURES[name]
    theirs = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(data).image), np.asarray(theirs))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_told(name: str) -> None:
    with pytest.raises(PictureError):
        decode(BROKEN[name])


def test_modes_of_no_picture_are_refused_and_those_of_16_bits_scaled() -> None:
    with pytest.raises(PictureError, match="fractions"):
        in_rgb(Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(PictureError, match="8 or 16 bits"):
        in_rgb(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)))
    wide = in_rgb(Image.fromarray(np.array([[0, 0x1234], [0xFF00, 0xFFFF]], np.int32)))
    assert np.asarray(wide)[..., 0].tolist() == [[0, 0x12], [255, 255]]


def test_pool_target_and_evaluation_see_the_same_pixels(tmp_path: Path, uid: Callable[[int], str]) -> None:
    files = [data for data, _ in PICTURES.values()]
    written = [Sample(f"{i:03d}", data, "png", f"caption {i}", {"uid": uid(i)}) for i, data in enumerate(files)]
    broken = [Sample(f"b{i}", data, "png", "x", {"uid": uid(90 + i)}) for i, data in enumerate(BROKEN.values())]
    write_shard(tmp_path / "pool" / "0.tar", [*written, *broken])
    pool = build_pool(tmp_path / "pool", tmp_path / "home", BuildOptions(max_rejects=len(broken)))
    pairs = load_pairs(pool, SIDE)
    streamed = load_pairs(pool, SIDE + 1, decoded_disk=0)
    order = sorted(range(len(written)), key=uid)
    expected = np.stack([expected for _, expected in PICTURES.values()])
    in_pool = pairs.images(np.arange(len(written)))
    np.testing.assert_array_equal(in_pool.transpose(0, 2, 3, 1), expected[order])
    larger = [resized(Image.fromarray(picture), SIDE + 1) for picture in expected[order]]
    np.testing.assert_array_equal(streamed.images(np.arange(len(written))), larger)
    samples = [{"cls": b"0", "png": data} for data in files]
    directory = write_set(tmp_path / "wds_own_test", samples, ["a", "b"])
    part = load_part(TaskOptions(source=str(directory), split="all"), PartsOptions(), SIDE)
    np.testing.assert_array_equal(part.images.transpose(0, 2, 3, 1), expected)
    shown: list[np.ndarray] = []
    encoder = OpenClipEncoder(None, None, lambda image: shown.append(np.asarray(image)), "cpu")  # type: ignore[arg-type]
    for data in files:
        encoder.pixels(decode(data).image)
    np.testing.assert_array_equal(np.stack(shown), expected)
    pools_own = {bytes(one).ljust(16, b"\0").hex() for one in pairs.digests.tolist()}  # type: ignore[union-attr]
    assert pools_own == set(part.digests)


@pytest.mark.parametrize("name", PICTURES)
def test_the_report_shows_what_the_model_sees(name: str, tmp_path: Path) -> None:
    """A browser turns by EXIF, blends, animates: what it would show otherwise goes in decoded."""
    data, expected = PICTURES[name]
    (tmp_path / "0.tar").write_bytes(data)
    row = {"shard": str(tmp_path / "0.tar"), "image_offset": 0, "image_size": len(data)}
    kind = decode(data).format
    url = picture_url({**row, "width": SIDE, "height": SIDE, "image_format": kind}, tmp_path)
    assert url is not None
    shown = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert shown.mode in ("L", "RGB") and shown.getexif().get(0x0112, 1) == 1 and getattr(shown, "n_frames", 1) == 1
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), expected)


def test_a_sheet_of_16_bits_keeps_its_greys(tmp_path: Path) -> None:
    small_catalog(tmp_path)
    with Image.open(tmp_path / "sheet" / "tiles.png") as image:
        tiles = np.asarray(image.convert("L"))
    before = open_sheet(tmp_path / "sheet").tiles
    Image.fromarray(tiles.astype(np.uint16) << 8).save(tmp_path / "sheet" / "tiles.png")
    np.testing.assert_array_equal(open_sheet(tmp_path / "sheet").tiles, before)


def test_a_picture_of_one_row_does_not_fill_the_memory() -> None:
    """Scaled whole it would have 3 billion pixels; a smaller one of the kind shows that the part is the right one."""
    long = np.tile(np.arange(256, dtype=np.uint8), 100)[None, :, None].repeat(3, 2)
    assert resized(Image.fromarray(long.repeat(2, 1)), 224).shape == (3, 224, 224)
    strip = Image.fromarray(long[:, :600])
    whole, part = resized(strip, 16), _by_part(strip, 16)
    assert np.abs(whole.astype(int) - part.astype(int)).max() <= 1


def _by_part(image: Image.Image, size: int) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.pool.decoding.LARGE", 1)
        return resized(image, size)
