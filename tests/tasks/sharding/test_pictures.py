"""What is done with a picture: img2dataset's modes, and the oddities of files, as `pool.decoding` settles them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tasks.pool.decoding import decode
from tasks.pool.validation import Rejected
from tasks.sharding.options import OptionsError, ShardOptions, read_options
from tasks.sharding.pictures import made
from testing.picture_sources import picture


@pytest.mark.parametrize(
    ("mode", "given", "size"),
    [
        ("keep_ratio", (400, 200), (200, 100)),
        ("keep_ratio_largest", (400, 200), (100, 50)),
        ("center_crop", (400, 200), (100, 100)),
        ("border", (200, 400), (100, 100)),
        ("keep_ratio", (50, 30), (50, 30)),
        ("border", (50, 30), (50, 30)),
    ],
)
def test_modes_give_img2datasets_sizes(mode: str, given: tuple[int, int], size: tuple[int, int]) -> None:
    found = made(picture(1, "PNG", given), ShardOptions(image_size=100, resize_mode=mode))
    assert found.size == size and found.original_size == given
    assert decode(found.data).image.size == size
    assert found.format == ("png" if size == given else "jpg")


def test_smaller_pictures_are_enlarged_only_when_told() -> None:
    options = ShardOptions(image_size=100, resize_mode="border", resize_only_if_bigger=False, encode_format="png")
    image = decode(made(picture(1, "PNG", (50, 30)), options).data).image
    assert image.size == (100, 100) and image.getpixel((0, 0)) == (255, 255, 255)


def test_bytes_are_kept_unless_something_is_asked_for() -> None:
    data = picture(1, "WEBP", (40, 30))
    assert made(data, ShardOptions()).data == data
    assert made(data, ShardOptions(encode_format="webp")).data == data
    assert made(data, ShardOptions(encode_format="webp", encode_quality=5)).data != data
    written = made(data, ShardOptions(encode_format="png"))
    assert np.array_equal(np.asarray(decode(written.data).image), np.asarray(decode(data).image))


@pytest.mark.parametrize(
    ("options", "told"),
    [({"min_image_size": 31}, "image too small"), ({"max_aspect_ratio": 1.3}, "aspect ratio too large")],
)
def test_pictures_that_do_not_fit_fail_in_img2datasets_words(options: dict[str, float], told: str) -> None:
    with pytest.raises(Rejected) as caught:
        made(picture(1, "PNG", (40, 30)), read_options(options))
    assert caught.value.reason == told


def test_orientation_is_noted_and_not_applied_and_does_not_outlive_a_new_file() -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    kept = made(buffer.getvalue(), ShardOptions())
    assert kept.size == (40, 20) and kept.exif == '{"Orientation": "6"}'
    written = made(buffer.getvalue(), ShardOptions(image_size=10, resize_mode="keep_ratio"))
    assert written.size == (20, 10) and b"Exif" not in written.data and written.exif == kept.exif


def test_comments_and_profiles_do_not_outlive_a_new_file() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", comment=b"a secret", icc_profile=b"a profile")
    for form in ("jpg", "png", "webp"):
        written = made(buffer.getvalue(), ShardOptions(image_size=10, resize_mode="keep_ratio", encode_format=form))
        assert b"secret" not in written.data and b"profile" not in written.data


@pytest.mark.parametrize("mode", ["I;16", "CMYK", "P", "RGBA", "LA", "L", "1"])
def test_other_modes_are_written_as_they_are_decoded(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20), 200 if mode in ("I;16", "L", "P", "1") else None).save(
        buffer, "JPEG" if mode == "CMYK" else "PNG"
    )
    written = made(buffer.getvalue(), ShardOptions(encode_format="png", encode_quality=1))
    image = Image.open(io.BytesIO(written.data))
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(decode(buffer.getvalue()).image))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"resize_mode": "border"}, "needs an image_size"),
        ({"image_size": 100}, "does nothing"),
        ({"encode_format": "png", "encode_quality": 95}, "0 to 9"),
        ({"encode_format": "gif"}, "encode_format"),
        ({"templates": ["a photo"]}, "no {}"),
        ({"colour": 1}, "colour"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(OptionsError, match=told):
        read_options(options)
