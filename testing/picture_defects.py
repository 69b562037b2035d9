"""What can be wrong with pictures and captions, planted in every form that they come in; and how it ended.

Defects of a pair are planted in a few good ones, written in each form that has a place for them; those of tars are
`testing.defects`', in a DataComp pool whose shards are cut anew. Each must end as a failure with its reason in the
shard's table, as a row of `duplicates.parquet`, or as a stop of ours; and every good pair must come out byte for byte.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from mgd_core.errors import UserError
from testing.datacomp_pool import make_pool
from testing.defects import giant
from testing.hostile_pool import DEFECTS, Defect, Harmless, Judgement, Rejected, Stopped, whole
from testing.picture_sources import FORMS, WITHOUT_UID, Pair, expected, pairs, picture, shard_plainly

TABLES = ("CSV", "open_clip's TSV", "Parquet of paths")
PARQUET = (
    "Parquet of paths", "Parquet with Hugging Face's struct", "Parquet with a binary column", "img2dataset's parquet",
    "JSON lines (imagefolder)",
)  # fmt: skip
NO_CAPTION = ("class folders",)


def _image(data: bytes | None) -> Callable[[Pair], None]:
    def change(one: Pair) -> None:
        one.image = data

    return change


def _caption(data: bytes | None) -> Callable[[Pair], None]:
    def change(one: Pair) -> None:
        one.caption = data

    return change


def _uid(text: str) -> Callable[[Pair], None]:
    def change(one: Pair) -> None:
        one.uid = text

    return change


PAIR_DEFECTS: dict[str, tuple[Callable[[Pair], None], str, tuple[str, ...]]] = {
    "image missing": (_image(None), "missing_image", ("class folders",)),
    "image of no bytes": (_image(b""), "undecodable_image", ()),
    "image cut": (_image(picture(4, size=(64, 64))[:900]), "undecodable_image", ()),
    "image is a web page": (_image(b"<html><body>403 Forbidden</body></html>"), "undecodable_image", ()),
    "image is a GIF": (_image(picture(4, "GIF")), "undecodable_image", ()),
    "image is a bomb": (_image(giant()), "undecodable_image", ()),
    "caption missing": (_caption(None), "missing_text", NO_CAPTION),
    "caption blank": (_caption(b" \n\t"), "empty_text", NO_CAPTION),
    "caption in another encoding": (_caption("ü".encode("latin-1")), "bad_text", (*NO_CAPTION, *PARQUET)),
    "caption with a NUL": (_caption(b"a\0b"), "bad_text", NO_CAPTION),
    "uid not hex": (_uid("not a uid"), "bad_uid", WITHOUT_UID),
    "uid too long": (_uid("a" * 33), "bad_uid", WITHOUT_UID),
}
"""How a pair is spoilt, the reason it must fail with, and the forms that have no place for such a thing."""
ALSO = {
    ("CSV", "caption missing"): "empty_text", ("open_clip's TSV", "caption missing"): "empty_text",
    ("img2dataset's files", "image missing"): "", ("img2dataset's parquet", "image missing"): "HTTP Error 404",
    ("img2dataset's webdataset", "image missing"): "missing_image",
}  # fmt: skip
"""Where a form gives it another name: an empty field of a CSV is a blank caption; img2dataset's parquet has a row of a
dead link, its files nothing."""
HARMLESS = ("missing_uid", "empty_tar", "missing_text")
"""What a tar that is cut anew may lack: a uid is made, a tar without a sample told, a caption taken from the json."""


def fitting(form: str) -> list[str]:
    """The defects that a form has a place for."""
    return [name for name, (_, _, without) in PAIR_DEFECTS.items() if form not in without]


def judge_pairs(form: str, names: list[str], scratch: Path) -> Judgement:
    """Plant defects of pairs in a form, each in a pair of its own between good ones, and shard it."""
    made = pairs(2 * len(names) + 3)
    spoilt = {2 * i + 1: name for i, name in enumerate(names)}
    good = [one for one in made if one.number not in spoilt]
    reasons = []
    for number, name in spoilt.items():
        change, reason, _ = PAIR_DEFECTS[name]
        change(made[number])
        reasons.append(ALSO.get((form, name), reason))
    try:
        shard_plainly([FORMS[form](scratch / "source", made)], scratch / "out", scratch / "home", shard_size=20)
    except UserError as error:
        return Judgement(f"stopped: {error}", len(good), len(good))
    told = sorted(one.partition(": ")[0] for one in _failures(scratch / "out"))
    silent = "" if told == sorted(filter(None, reasons)) else f"{told}, not {reasons}"
    wanted = Counter(expected(form, one) for one in good)
    return Judgement(silent, sum((wanted - _pairs_of(scratch / "out")).values()), len(good))


def judge_tars(one: Defect, scratch: Path) -> Judgement:
    """Plant a defect of `testing.defects` in a DataComp pool, and cut its shards anew."""
    pool = make_pool(scratch / "pool")
    pool.at = 1
    spoilt = set() if one.after else one.plant(pool) or set()
    good = {whole(a.uid): a for a in reversed(pool.alive())}
    pool.write()
    if one.after:
        spoilt |= one.plant(pool) or set()
    if isinstance(one.end, Stopped) or one.end.kind in HARMLESS or isinstance(one.end, Harmless):
        kind, n = "", 0
    else:
        kind, n = (one.end.kind, one.end.n) if isinstance(one.end, Rejected) else ("", 0)
    try:
        meta = shard_plainly([str(pool.directory / "shards")], scratch / "out", scratch / "home", shard_size=50)
    except UserError as error:
        return Judgement("" if n else f"stopped: {error}", 0, 0)
    failures = Counter(text.partition(": ")[0] for text in _failures(scratch / "out"))
    told = meta["duplicates"].get("uid", 0) if kind == "duplicate_uid" else failures[kind]
    silent = "" if not kind or told == n else f"expected {n} {kind}, got {dict(failures)}"
    found = Counter(image for image, _ in _pairs_of(scratch / "out").elements())
    wanted = Counter(a.image for uid, a in good.items() if uid not in spoilt and a.image is not None)
    return Judgement(silent, sum((wanted - found).values()), sum(wanted.values()))


def tar_defects() -> dict[str, Defect]:
    """Defects of `testing.defects` that tars or what is in them can have."""
    apart = ("metadata", "npz", "stats", "table", "gap_in", "tar_missing", "scores")
    return {name: one for name, one in DEFECTS.items() if not any(word in name for word in apart)}


def _failures(out: Path) -> list[str]:
    tables = [pq.read_table(path) for path in sorted(out.glob("0*.parquet"))]
    return [text for table in tables for text in table["error_message"].to_pylist() if text is not None]


def _pairs_of(out: Path) -> Counter[tuple[bytes, str]]:
    """Pictures and captions of all tars, by Python's own reader."""
    found: Counter[tuple[bytes, str]] = Counter()
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as archive:
            members = [(one.name, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]
        for i in range(0, len(members), 3):
            (_, image), (_, record), (_, text) = members[i : i + 3]
            assert json.loads(record)["caption"] == text.decode()
            found[image, text.decode()] += 1
    return found
