# /// script
# requires-python = ">=3.11"
# dependencies = ["resvg-py==0.5.0", "pillow==13.0.0", "numpy==2.4.6", "pyarrow==26.0.1"]
# ///
"""Cut the icons pool: emoji among flags and interface icons, each with the name that its own set gave it.

Needs what emoji/cut.py needs, got in the same way (see its top):

    python catalogs/pools/icons/cut.py --iconify iconify/package --emojibase emojibase/package

`--all DIR` cuts every colour set of the collection instead, logos among them, into DIR: about 57,000 icons. Many of
those are trademarks, which is why they are not in the repository.

Running it again gives the same files byte for byte (under the versions of the project's lock).

Nothing of the pool is spoilt: it holds every icon that its sets show, but skin tones and marks, under its name in plain
words. Sets draw the same things (four of flags, four of one maker's interface icons), so near-duplicates are many.
Target and test are those of the emoji pool, two styles that the pool has not; `truth_clean` says that an icon is an
emoji.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from catalogs.pools.cutting import fixed_order, lay_out, tile_uid, write_sheet
from catalogs.pools.emoji.cut import (
    COLOURS,
    SIDE,
    TARGET_STYLE,
    TEST_STYLE,
    TILES_PER_ROW,
    TONE,
    drop_rare_classes,
    match,
    read_concepts,
    render,
    split_target,
)
from tasks.pool.sheets import TileSheet, cut_out

SEED = 3
EMOJI = "Emoji"
SETS = {
    "fluent-emoji": "MIT, Microsoft Corporation",
    "fluent-emoji-flat": "MIT, Microsoft Corporation",
    "fxemoji": "Apache-2.0, Mozilla",
    "twemoji": "CC BY 4.0, Twitter, Inc and other contributors",
    "circle-flags": "MIT, HatScripts",
    "cif": "CC0 1.0, CoreUI",
    "flag": "MIT, Panayiotis Lipiridis",
    "flagpack": "MIT, Yummygum",
    "flat-color-icons": "MIT, Icons8",
    "fluent-color": "MIT, Microsoft Corporation",
    "glyphs-poly": "MIT, Goran Spasojevic",
    "icon-park": "Apache-2.0, ByteDance",
    "marketeq": "MIT, Marketeq",
    "meteocons": "MIT, Bas Milius",
    "streamline-color": "CC BY 4.0, Streamline",
    "streamline-flex-color": "CC BY 4.0, Streamline",
    "streamline-plump-color": "CC BY 4.0, Streamline",
    "streamline-sharp-color": "CC BY 4.0, Streamline",
}
MARKS = """
adobe amazon android android-os app-store apple behance browser-chrome browser-safari cd-logo chrome css-three
debian discord dribbble dropbox dvd-logo facebook facebook-1 figma github gmail google google-drive instagram
ios-ipados linkedin linux meta netflix nintendo-switch nintendo-xbox-controller-1 paypal play-station play-store
reddit safari skype slack spotify steam telegram tiktok twitter whatsapp wi-fi-logo wikipedia x xbox youtube
"""
"""Trademarks among interface icons, by eye; icon-park files its own under Brand."""
HELD_BACK = {TARGET_STYLE: "CC BY 4.0, EmojiOne (JoyPixels)", TEST_STYLE: "Apache-2.0, Google"}


@dataclass(frozen=True)
class Icon:
    """One tile to be; concept and subgroup are known of target and test only, which are asked for them."""

    source: str
    name: str
    category: str
    split: str
    text: str
    concept: str = ""
    subgroup: str = ""


def main() -> None:
    """Command line: collect, render, write the sheet, say what was left out."""
    parser = argparse.ArgumentParser(description="Cut the icons pool from @iconify/json and emojibase-data.")
    parser.add_argument("--iconify", type=Path, required=True, help="unpacked @iconify/json 2.2.535")
    parser.add_argument("--emojibase", type=Path, required=True, help="unpacked emojibase-data 17.0.0")
    parser.add_argument("--all", type=Path, metavar="DIR", help="every colour set, trademarks among them, into DIR")
    options = parser.parse_args()
    try:
        sheet = cut(options.iconify, options.emojibase, options.all)
    except FileNotFoundError as error:
        sys.exit(f"{error.filename}: no such file; see the top of emoji/cut.py for how to get both packages")
    print(f"{sheet.directory}: {len(sheet.tiles)} tiles, {sheet.splits}")


def cut(iconify: Path, emojibase: Path, whole: Path | None) -> TileSheet:
    """Write the sheet beside this file, or that of every colour set into ``whole``."""
    about = json.loads((iconify / "collections.json").read_text())
    licences = SETS if whole is None else every_colour_set(about)
    sets = {name: json.loads((iconify / "json" / f"{name}.json").read_text()) for name in (*licences, *HELD_BACK)}
    pool = [
        icon for name in licences for icon in shown(name, sets[name], category(name, about), marks=whole is not None)
    ]
    pool = [pool[i] for i in fixed_order([f"{icon.source}/{icon.name}" for icon in pool], SEED, "mix")]
    icons = [*pool, *held_back(sets, read_concepts(emojibase))]
    tiles = np.stack([render(sets[icon.source], icon.name) for icon in icons])
    picture = Image.fromarray(lay_out(tiles, TILES_PER_ROW))
    picture = picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE)
    tiles = cut_out(np.asarray(picture.convert("RGB")), SIDE, SIDE)[: len(icons)]
    rows = [
        {
            "tile": tile,
            "uid": tile_uid(icon.split, tiles[tile], icon.text, f"{icon.source}/{icon.name}"),
            "split": icon.split,
            "text": icon.text,
            "width": SIDE,
            "height": SIDE,
            "source": icon.source,
            "category": icon.category,
            "subgroup": icon.subgroup,
            "concept": icon.concept,
            "truth_clean": icon.category == EMOJI if icon.split == "pool" else None,
        }
        for tile, icon in enumerate(icons)
    ]
    meta = {
        "tile_width": SIDE,
        "tile_height": SIDE,
        "tiles_per_row": TILES_PER_ROW,
        "source": "npm @iconify/json 2.2.535; names and groups of target and test: npm emojibase-data 17.0.0 (MIT)",
        "licence": licences | HELD_BACK,
        "seed": SEED,
        "splits": dict(Counter(icon.split for icon in icons)),
        "templates": ["{}"],
    }
    return write_sheet(whole or Path(__file__).parent, picture, _table(rows), meta)


def every_colour_set(about: dict[str, Any]) -> dict[str, str]:
    """Licence of each set in colour that is not held back, by its name."""
    found = {name: entry for name, entry in about.items() if entry.get("palette")}
    return {name: entry["license"]["spdx"] for name, entry in sorted(found.items()) if name not in HELD_BACK}


def category(name: str, about: dict[str, Any]) -> str:
    """What the collection files a set under; some of its sets are under nothing."""
    return str(about[name].get("category", EMOJI if "emoji" in name else "Other"))


def shown(source: str, icons: dict[str, Any], category: str, marks: bool) -> list[Icon]:
    """What a set shows, but for skin tones and, unless wanted, marks."""
    names = [name for name, icon in icons["icons"].items() if not icon.get("hidden")]
    every = set(names)
    toned = [name for name in names if "skin-tone" in name or ((found := TONE.match(name)) and found[1] in every)]
    kept = sorted(every.difference(toned) if category == EMOJI else every)
    if not marks and category != EMOJI:
        brands = {*MARKS.split(), *icons.get("categories", {}).get("Brand", [])}
        kept = [name for name in kept if name.removesuffix("-flat") not in brands]
    print(f"{source}: {len(names)} icons, {len(kept)} taken")
    return [Icon(source, name, category, "pool", plain(name)) for name in kept]


def plain(name: str) -> str:
    """A name in plain words."""
    return re.sub("[-_]+", " ", name).strip()


def held_back(sets: dict[str, Any], concepts: dict[str, Any]) -> list[Icon]:
    """Target, held-out and test: those of the emoji pool."""
    samples = drop_rare_classes([sample for name in HELD_BACK for sample in match(name, sets[name], concepts)])
    return [
        Icon(s.style, s.icon, EMOJI, s.split, s.true.text, s.true.slug, s.true.subgroup) for s in split_target(samples)
    ]


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(rows)
    narrow = {"tile": pa.int32(), "width": pa.int32(), "height": pa.int32()}
    return table.cast(pa.schema([(f.name, narrow.get(f.name, f.type)) for f in table.schema]))


if __name__ == "__main__":
    main()
