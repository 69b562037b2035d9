# /// script
# requires-python = ">=3.11"
# dependencies = ["resvg-py==0.5.0", "pillow==13.0.0", "numpy==2.4.6", "pyarrow==26.0.1"]
# ///
"""Cut the emoji pool from six free emoji sets: four styles to curate, a fifth as target, a sixth as test.

Needs this project's environment with resvg-py 0.5.0 beside it (not a dependency of the project), and two npm
packages:

    pip install resvg-py==0.5.0
    npm pack @iconify/json@2.2.535 emojibase-data@17.0.0
    mkdir iconify emojibase
    tar xzf iconify-json-2.2.535.tgz -C iconify && tar xzf emojibase-data-17.0.0.tgz -C emojibase
    python catalogs/pools/emoji/cut.py --iconify iconify/package --emojibase emojibase/package

(or, with nothing installed, from the root: `PYTHONPATH=. uv run --script catalogs/...` likewise.)

Running it again gives the same files byte for byte (under the versions of the project's lock).

An icon's name is matched to a Unicode emoji, its *concept*: by the slug of its CLDR name, by its Unicode
name, or by aliases.tsv. Icons without one are left out, as are hidden icons, skin tones, flags and
components, and second drawings of a concept in the same style; from target and test also the subgroups of
which the target style has fewer than six. The caption is the concept's name. 45 % of the pool's captions are
then permuted among themselves, so that each comes from a sample of another concept; `truth_*` keeps what was
true.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from catalogs.pools.cutting import fixed_order, lay_out, tile_uid, write_sheet
from tasks.pool.sheets import Pixels, TileSheet, cut_out

SEED = 2
SWAPPED = 0.45
SIDE = 32
TILES_PER_ROW = 128
COLOURS = 256
POOL_STYLES = ("fluent-emoji", "fluent-emoji-flat", "fxemoji", "twemoji")
TARGET_STYLE = "emojione"
TEST_STYLE = "noto"
# A subgroup is a class of the zero-shot tests only if the target style has this many of it: five for the
# target, one held out. Samples of the rarer ones stay in the pool.
MIN_CLASS = 6
LEFT_OUT_GROUPS = ("flags", "component")
TONE = re.compile(r"(.+)-(light|medium-light|medium|medium-dark|dark)$")
LICENCES = {
    "fluent-emoji": "MIT, Microsoft Corporation",
    "fluent-emoji-flat": "MIT, Microsoft Corporation",
    "fxemoji": "Apache-2.0, Mozilla",
    "twemoji": "CC BY 4.0, Twitter, Inc and other contributors",
    "emojione": "CC BY 4.0, EmojiOne (JoyPixels)",
    "noto": "Apache-2.0, Google",
}


@dataclass(frozen=True)
class Concept:
    """One Unicode emoji: its CLDR name as a slug, and where Unicode files it."""

    slug: str
    group: str
    subgroup: str

    @property
    def text(self) -> str:
        """The caption: the name in plain words."""
        return self.slug.replace("-", " ")


@dataclass(frozen=True)
class Sample:
    """One tile to be: its drawing, the concept it shows and the concept its caption names."""

    style: str
    icon: str
    split: str
    true: Concept
    seen: Concept


def main() -> None:
    """Command line: match names, split, spoil, render, write the sheet, say what was left out."""
    parser = argparse.ArgumentParser(description="Cut the emoji pool from @iconify/json and emojibase-data.")
    parser.add_argument("--iconify", type=Path, required=True, help="unpacked @iconify/json 2.2.535")
    parser.add_argument("--emojibase", type=Path, required=True, help="unpacked emojibase-data 17.0.0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: beside this file")
    options = parser.parse_args()
    try:
        sheet = cut(options.iconify, options.emojibase, options.out)
    except FileNotFoundError as error:
        sys.exit(f"{error.filename}: no such file; see the top of {__file__} for how to get both packages")
    print(f"{options.out}: {len(sheet.tiles)} tiles, {sheet.splits}")


def cut(iconify: Path, emojibase: Path, out: Path) -> TileSheet:
    """Write the sheet to `out` from the two unpacked packages."""
    concepts = read_concepts(emojibase)
    sets = {style: json.loads((iconify / "json" / f"{style}.json").read_text()) for style in LICENCES}
    samples = [s for style, icons in sets.items() for s in match(style, icons, concepts)]
    samples = spoil(split_target(drop_rare_classes(samples)))
    tiles = np.stack([render(sets[s.style], s.icon) for s in samples])
    picture = Image.fromarray(lay_out(tiles, TILES_PER_ROW))
    # No dithering: on 32 pixels it is noise, and noise does not compress.
    picture = picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE)
    tiles = cut_out(np.asarray(picture.convert("RGB")), SIDE, SIDE)[: len(samples)]
    return write_sheet(out, picture, tabulate(samples, tiles), describe(samples))


def slug(name: str) -> str:
    """A name as the icon sets write it: lower-case ASCII words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = plain.replace("&", " and ").replace("#", " hash ").replace("*", " asterisk ").replace("'", "")
    return re.sub("[^a-z0-9]+", "-", words).strip("-")


def read_concepts(emojibase: Path) -> dict[str, Concept]:
    """Concept by every name it goes by: CLDR slug, and that or the Unicode name without separators."""
    entries = json.loads((emojibase / "en" / "data.json").read_text())
    unicode_names = json.loads((emojibase / "meta" / "unicode-names.json").read_text())
    meta = json.loads((emojibase / "meta" / "groups.json").read_text())
    exact: dict[str, Concept] = {}
    loose: dict[str, Concept] = {}
    for entry in (e for e in entries if "group" in e):
        group, subgroup = meta["groups"][str(entry["group"])], meta["subgroups"][str(entry["subgroup"])]
        concept = Concept(slug(entry["label"]), group, subgroup)
        exact[concept.slug] = concept
        old_name = unicode_names.get(entry["hexcode"].removesuffix("-FE0F"), "")
        for name in (concept.slug, slug(old_name)):
            loose.setdefault(name.replace("-", ""), concept)
    return loose | exact


def read_aliases(style: str, concepts: dict[str, Concept]) -> dict[str, Concept | None]:
    """Concepts of one set's odd names, by eye, from aliases.tsv (style, icon, slug; "-" for no concept)."""
    lines = (Path(__file__).parent / "aliases.tsv").read_text().splitlines()
    entries = (line.split("\t") for line in lines)
    return {icon: None if name == "-" else concepts[name] for where, icon, name in entries if where == style}


def match(style: str, icons: dict[str, Any], concepts: dict[str, Concept]) -> list[Sample]:
    """The usable icons of one set as samples; an exact name wins over another name of the same concept."""
    known: dict[str, Concept | None] = {**concepts, **read_aliases(style, concepts)}
    shown = [name for name, icon in icons["icons"].items() if not icon.get("hidden")]
    plain = [name for name in shown if "skin-tone" not in name and not _is_tone(name, shown)]
    plain = [name for name in plain if not name.startswith("flag-")]
    split = {TARGET_STYLE: "target", TEST_STYLE: "test"}.get(style, "pool")
    samples: dict[str, Sample] = {}
    outcome: Counter[str] = Counter()
    for name in sorted(plain, key=lambda name: (getattr(known.get(name), "slug", None) != name, name)):
        concept = known.get(name)
        if concept is None:
            outcome["no concept"] += 1
        elif concept.group in LEFT_OUT_GROUPS:
            outcome["flag or component"] += 1
        elif concept.slug in samples:
            outcome["concept drawn twice"] += 1
        else:
            samples[concept.slug] = Sample(style, name, split, concept, concept)
    print(f"{style}: {len(plain)} icons, {len(samples)} taken, left out {dict(outcome)}")
    return list(samples.values())


def _is_tone(name: str, shown: list[str]) -> bool:
    """True for "x-medium-dark" where the set has "x" too: fluent-emoji names skin tones without saying so."""
    found = TONE.match(name)
    return bool(found and found[1] in shown)


def drop_rare_classes(samples: list[Sample]) -> list[Sample]:
    """Take subgroups that the target style hardly draws out of target and test, for equal classes in both."""
    drawn = Counter(s.true.subgroup for s in samples if s.split == "target")
    kept = [s for s in samples if s.split == "pool" or drawn[s.true.subgroup] >= MIN_CLASS]
    lost = Counter(s.style for s in samples) - Counter(s.style for s in kept)
    classes = sum(n >= MIN_CLASS for n in drawn.values())
    print(f"{classes} subgroups as classes; of rarer ones left out: {dict(lost)}")
    return kept


def split_target(samples: list[Sample]) -> list[Sample]:
    """A quarter of every subgroup of the target style becomes `heldout`; all in a fixed mixed order."""
    order = fixed_order([f"{s.style}/{s.icon}" for s in samples], SEED, "mix")
    seen: Counter[str] = Counter()
    mixed = []
    for sample in (samples[i] for i in order):
        if sample.split == "target":
            seen[sample.true.subgroup] += 1
            sample = replace(sample, split="heldout" if seen[sample.true.subgroup] % 4 == 0 else "target")
        mixed.append(sample)
    return sorted(mixed, key=lambda s: ("pool", "target", "heldout", "test").index(s.split))


def spoil(samples: list[Sample]) -> list[Sample]:
    """Permute the captions of SWAPPED of the pool: the first cyclic shift with no concept on itself."""
    pool = [i for i, s in enumerate(samples) if s.split == "pool"]
    order = fixed_order([f"{samples[i].style}/{samples[i].icon}" for i in pool], SEED, "swap")
    chosen = [pool[i] for i in order[: round(SWAPPED * len(pool))]]
    for shift in range(1, len(chosen)):
        donors = chosen[shift:] + chosen[:shift]
        if all(samples[i].true != samples[j].true for i, j in zip(chosen, donors, strict=True)):
            break
    else:
        raise ValueError(f"no shift of {len(chosen)} captions gives each another concept's; change SEED")
    spoilt = list(samples)
    for i, j in zip(chosen, donors, strict=True):
        spoilt[i] = replace(samples[i], seen=samples[j].true)
    return spoilt


def render(icons: dict[str, Any], name: str) -> Pixels:
    """One icon as SIDE x SIDE RGB over white; a drawing that is not square keeps its shape and is centred."""
    import resvg_py  # type: ignore[import-not-found]  # only for cutting, so not a dependency of the project

    icon = icons["icons"][name]
    # Iconify's defaults: a box of 16 from the origin; a set's value overrides them, an icon's overrides both.
    box = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(key, icons.get(key, value)) for key, value in box.items())
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{SIDE}" '
        f'height="{SIDE}" viewBox="{left} {top} {width} {height}" color="black">{icon["body"]}</svg>'
    )
    # dpi=96: resvg's own default of 0 makes lengths in mm invalid.
    png = resvg_py.svg_to_bytes(svg_string=svg, dpi=96, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB"))


def tabulate(samples: list[Sample], tiles: Pixels) -> pa.Table:
    """The sheet's table; concept and subgroup follow the caption seen, truth_* are null outside the pool."""
    spoilt = [s.split == "pool" for s in samples]
    known = list(zip(samples, spoilt, strict=True))
    uids = [tile_uid(s.split, t, s.seen.text, f"{s.style}/{s.icon}") for s, t in zip(samples, tiles, strict=True)]
    columns = {
        "tile": pa.array(range(len(samples)), pa.int32()),
        "uid": uids,
        "split": [s.split for s in samples],
        "text": [s.seen.text for s in samples],
        "width": pa.array([SIDE] * len(samples), pa.int32()),
        "height": pa.array([SIDE] * len(samples), pa.int32()),
        "style": [s.style for s in samples],
        "group": [s.seen.group for s in samples],
        "subgroup": [s.seen.subgroup for s in samples],
        "concept": [s.seen.slug for s in samples],
        "truth_clean": pa.array([s.seen == s.true if pool else None for s, pool in known]),
        "truth_text": [s.true.text if pool else None for s, pool in known],
        "truth_subgroup": [s.true.subgroup if pool else None for s, pool in known],
    }
    return pa.table(columns)


def describe(samples: list[Sample]) -> dict[str, Any]:
    """What the table's schema metadata says about layout and provenance."""
    return {
        "tile_width": SIDE,
        "tile_height": SIDE,
        "tiles_per_row": TILES_PER_ROW,
        "source": "npm @iconify/json 2.2.535; names and groups: npm emojibase-data 17.0.0 (MIT)",
        "licence": LICENCES,
        "seed": SEED,
        "swapped": SWAPPED,
        "splits": dict(Counter(s.split for s in samples)),
        "templates": ["{}"],
    }


if __name__ == "__main__":
    main()
