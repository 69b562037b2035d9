"""Contact sheets: the pictures behind the counts, each with its caption, g, count, and the truth where it is known.

Four galleries: a fixed sample of what was kept, what was dropped with the largest summed g, what is repeated most, and
what moved most often between rounds. Which samples are in one is told by an SQL query that the page repeats; their
bytes come from the shards by ranged reads, `TILES` a gallery. Pictures are shown as the model sees them (`decoding`):
one up to `SMALL` pixels goes in byte for byte, if browsers show that as it is decoded, and is drawn with crisp pixels;
a larger one is scaled down. One that cannot be read leaves an empty tile.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from tasks.html.charts import scale_exponent, unit_name
from tasks.html.pages import render
from tasks.pool.decoding import decode
from tasks.pool.samples import read_sample

TILES = 32
SMALL = 96  # pixels of the longer side that are kept as they are
ORIENTATION = 0x0112  # the tag in EXIF
MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True)
class Gallery:
    """One gallery: its title, what is on it, the query that picks and orders its samples, and what to say if it is
    empty."""

    title: str
    words: str
    sql: str
    empty: str
    told: str = ""
    """What its g are; empty: sums over the rounds."""


PICK = "SELECT uid, text, g_sum, g_sum_later, count, outcome FROM sample_outcomes"
GALLERIES = (
    Gallery(
        "Kept once",
        "A fixed sample of those with count 1, in no particular order.",
        f"{PICK} WHERE outcome = 'kept' ORDER BY md5(uid::VARCHAR) LIMIT {TILES}",
        "No sample has count 1.",
    ),
    Gallery(
        "Dropped",
        "Those dropped with the largest g summed over the rounds before the chosen one: those the target wanted least.",
        f"{PICK} WHERE outcome = 'dropped' ORDER BY g_sum DESC NULLS LAST, uid LIMIT {TILES}",
        "No sample was dropped.",
    ),
    Gallery(
        "Repeated most",
        "Those with the highest counts, the lowest summed g first.",
        f"{PICK} WHERE outcome = 'repeated' ORDER BY count DESC, g_sum NULLS LAST, uid LIMIT {TILES}",
        "No sample is repeated.",
    ),
    Gallery(
        "Moved most",
        "Those whose count changed most over all rounds, the largest |g| at those changes first. "
        "The figures beside × are the counts of the rounds in turn.",
        "SELECT uid, s.text, s.g_sum, s.g_sum_later, s.count, s.outcome, m.moved FROM sample_outcomes AS s JOIN "
        "(SELECT uid, sum(abs(change)) AS moved, max(abs(g)) AS force FROM movers GROUP BY uid) AS m USING (uid) "
        f"ORDER BY m.moved DESC, m.force DESC NULLS LAST, uid LIMIT {TILES}",
        "No count changed between rounds.",
    ),
)


def contact_sheet(
    gallery: Gallery, rows: Sequence[dict[str, Any]], root: Path | None, run: str, paths: dict[Any, list[int]]
) -> Markup:
    """One gallery as HTML.

    `rows`: what the gallery's query picked, with the columns of samples added; `root`: the pool's directory, None if it
    is not known; `paths`: the counts of the rounds in turn, by uid, for samples where they are worth showing.
    """
    exponent = summed_exponent(rows)
    words = f"{gallery.told}{unit_name(exponent)}." if gallery.told else summed_words(rows, exponent)
    told = f"{words}{_right_ones(rows)}"
    tiles = [_tile(row, root, exponent, paths.get(row["uid"])) for row in rows]
    return render("gallery", run=run, gallery=gallery, rows=rows, told=told, table=None, tiles=tiles)


def picture_url(row: dict[str, Any], root: Path | None) -> str | None:
    """The picture of a row as a data URL, or None where its bytes cannot be had or are no picture.

    A report must not fail for one picture: the shard may be gone, far away, or replaced since it was indexed.
    """
    try:
        data = read_sample(row, root or "")
        large = max(row["width"], row["height"]) > SMALL
        plain = not large and row["image_format"] in MEDIA and _is_plain(data)
        kind, data = (MEDIA[row["image_format"]], data) if plain else ("image/png", _thumbnail(data))
    except (OSError, ValueError, ImportError):
        return None
    return f"data:{kind};base64,{b64encode(data).decode()}"


def _tile(row: dict[str, Any], root: Path | None, exponent: int, path: list[int] | None) -> dict[str, Any]:
    truth, state = _truth(row)
    # Small pictures are drawn larger by a whole factor, so that every pixel is a square of one size.
    longest = max(row["width"], row["height"], 1)
    factor: float = SMALL // longest if longest <= SMALL else SMALL / longest
    return {
        "url": picture_url(row, root),
        "crisp": longest <= SMALL,
        "width": max(1, round(row["width"] * factor)),
        "height": max(1, round(row["height"] * factor)),
        "words": " ".join(str(row["text"]).split()) or "(no caption)",
        "truth": truth,
        "state": state,
        "g": summed(row, exponent, "g\u00a0"),
        "count": count_told(row, path),
    }


def count_told(row: dict[str, Any], path: list[int] | None) -> str:
    """A sample's count, or its counts in the rounds in turn."""
    return f"×{row['count']}" if path is None else f"×{'·'.join(map(str, path))}"


def signed(value: float) -> str:
    """A number with its sign, three digits."""
    shown = round(value, 2) + 0.0  # no "-0.00"
    return (f"{shown:+.2f}" if abs(shown) < 10 else f"{value:+.3g}").replace("-", "−")


def summed_exponent(rows: Sequence[dict[str, Any]]) -> int:
    """The power of ten that the g of a gallery's samples are told in."""
    found = (row[name] for row in rows for name in ("g_sum", "g_sum_later"))
    return scale_exponent(max((abs(g) for g in found if g is not None), default=0.0))


def summed_words(rows: Sequence[dict[str, Any]], exponent: int) -> str:
    """What the g of a gallery's samples is, if any has one."""
    if all(row["g_sum"] is None and row["g_sum_later"] is None for row in rows):
        return ""
    later = "; in brackets that of the rounds from then on, which had no part in it"
    return f" g: summed over the rounds before the chosen one, which decided{later}{unit_name(exponent)}."


def summed(row: dict[str, Any], exponent: int, name: str = "") -> str:
    """A sample's g that decided its count, and in brackets what came later."""
    g, later = row["g_sum"], row["g_sum_later"]
    told = "not probed" if g is None else f"{name}{signed(g / 10**exponent)}"
    return told if later is None else f"{told} ({signed(later / 10**exponent)})"


def _truth(row: dict[str, Any]) -> tuple[str, str]:
    """The true caption if it is known and another than the one seen, and the tile's CSS class."""
    clean, truth = row.get("truth_clean"), row.get("truth_text")
    if clean is None:
        return "", ""
    if clean:
        return "", "clean"
    return (truth if truth and truth != row["text"] else "another"), "swapped"


def _right_ones(rows: Sequence[dict[str, Any]]) -> str:
    known = [row["truth_clean"] for row in rows if row.get("truth_clean") is not None]
    return f" {sum(known)} of these {len(known)} captions are right." if known else ""


def _is_plain(data: bytes) -> bool:
    """Whether browsers show a picture as it is decoded: they turn it by its EXIF, blend what is transparent, move what
    is animated, and follow ICC profiles."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
            special = {"transparency", "icc_profile"} & set(picture.info) or getattr(picture, "n_frames", 1) > 1
            return picture.mode in ("L", "RGB") and not special and picture.getexif().get(ORIENTATION, 1) == 1
    except Exception:  # decoders raise whatever they like on damaged bytes
        return False


def _thumbnail(data: bytes) -> bytes:
    small = decode(data).image
    small.thumbnail((SMALL, SMALL))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
