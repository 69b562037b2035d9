"""Subset files that are none: whoever names one, in an expression or elsewhere, is told which and what is wrong."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgd_core.errors import UserError
from tasks.subset.algebra import chosen_counts, write_choice
from tasks.subset.candidates import Candidates, CandidatesError, metadata_candidates
from tasks.subset.expressions import MOST_OPERANDS
from tasks.subset.files import SubsetError, read_subset
from tasks.tables.uids import to_words, uid_bytes

UIDS = [f"{number:032x}" for number in range(5, 60, 7)]
GOOD = to_words(UIDS)


def table(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table({"uid": UIDS[:2], "count": [1, 1], **columns}), path)


def cut(write: Callable[[Path], object], at: int = -30) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:at])

    return change


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def saved(array: Any) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, array)

    return save


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(GOOD)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (1 << 50,)})
        file.write(GOOD.tobytes())


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "no record"),
    "text": (lambda path: path.write_text("\n".join(UIDS)), "text"),
    "text of 32 bytes": (lambda path: path.write_text(UIDS[0]), "text"),
    "wrong dtype": (saved(np.zeros(3)), "expected one-dimensional records"),
    "big endian": (saved(GOOD.astype(">u8,>u8")), "expected one-dimensional records"),
    "wrong shape": (saved(GOOD.reshape(2, -1)), "expected one-dimensional records"),
    "no shape": (saved(GOOD[0]), "expected one-dimensional records"),
    "no record": (saved(GOOD[:0]), "no record"),
    "unsorted": (saved(GOOD[::-1]), "not sorted"),
    "objects": (saved(np.array(UIDS, object)), "not a numpy file"),
    "cut": (cut(saved(GOOD)), "cut, its header says more records"),
    "cut header": (cut(saved(GOOD), 40), "not a numpy file"),
    "huge": (huge, "cut, its header says more records"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(UIDS)), "a pickle"),
    "zip": (zipped, "a zip archive"),
    "gz": (lambda path: path.write_bytes(gzip.compress(GOOD.tobytes())), "compressed with gzip"),
    "foreign": (saved(to_words(["f" * 32])), "1 of its samples are not in"),
    "Parquet without uid": (lambda path: pq.write_table(pa.table({"id": UIDS}), path), r"columns \['id'\]"),
    "Parquet without count": (lambda path: pq.write_table(pa.table({"uid": UIDS}), path), r"columns \['uid'\]"),
    "Parquet cut": (cut(table()), "not a readable Parquet file"),
    "uid of another type": (table(uid=[12, 13]), "its uids are int64"),
    "uid of floats": (table(uid=[1.0, 2.0]), "its uids are double"),
    "uid no hex": (table(uid=["x", "y"]), "'x' is not a uid"),
    "uid of few bytes": (table(uid=[b"abc", b"abd"]), "widths must match"),
    "uid missing": (table(uid=[None, UIDS[0]]), "1 of 2 uids are missing"),
    "uid twice": (table(uid=[UIDS[0]] * 2), "twice|more than one row"),
    "count negative": (table(count=[1, -1]), "they go from -1 to 1"),
    "count missing": (table(count=[1, None]), "1 counts are missing"),
    "count NaN": (table(count=[1.0, float("nan")]), "got double"),
    "count huge": (table(count=[1, 2**40]), "they go from 1 to 1,099,511,627,776"),
    "count beyond int64": (table(count=pa.array([1, 2**63], pa.uint64())), "they go from 1 to 9,223"),
    "count of texts": (table(count=["1", "2"]), "got string"),
    "missing": (lambda path: None, "no filter, saved subset or file|No such file"),
    "directory": (lambda path: path.mkdir(), "is a directory|Is a directory"),
}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"uid": UIDS, "width": range(len(UIDS))}), tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def asked(samples: Path, ask: Callable[[Candidates], object]) -> object:
    with metadata_candidates(samples.parent / "home", [samples]) as candidates:
        return ask(candidates)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_what_is_wrong(samples: Path, name: str) -> None:
    write, told = WRONG[name]
    path = samples.parent / "wrong.npy"
    write(path)
    text, out = f'no_filter & "{path}" | "{path}"', samples.parent / "out.npy"
    for ask in (
        lambda candidates: write_choice(candidates, text, out),
        lambda candidates: chosen_counts(candidates, text, uid_bytes(UIDS)),
    ):
        with pytest.raises(UserError, match=told) as refused:
            asked(samples, ask)
        assert "wrong.npy" in str(refused.value) and not out.exists()
    if name != "foreign":
        with pytest.raises((SubsetError, OSError), match=told):
            read_subset(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(" * 5000 + "no_filter" + ")" * 5000, "too many parentheses"),
        (" | ".join(["no_filter"] * 5000), f"{MOST_OPERANDS} subsets are the most in one expression"),
        ("nobody(x=1)", "no filter, saved subset or file 'nobody'"),
        ("no_filter(x=1)", "no_filter has no parameter 'x'; it takes none"),
        ("clip_score(fraction='')", "fraction = : not what it takes"),
        ("clip_score(fraction=nan)", "fraction = nan: not what it takes"),
        ("''", "no filter, saved subset or file ''"),
        ("", "a subset is missing here"),
        ("'a\0b'", "a NUL has no place"),
        ("~nobody_at_all/x.npy", "no filter, saved subset or file '~nobody_at_all/x.npy'"),
        ("wide.sql & none.sql", r"chooses none of .* each operand chose: wide 8, none 0$"),
        ("wide.sql & (no_filter - wide.sql)", "wide 8, no_filter 8, wide 8: together, nothing"),
        ("half.sql", "its count is DOUBLE; counts are whole numbers"),
        ("null.sql", "null.sql: gives 8 rows without a uid"),
        ("nothing.sql", "nothing.sql: gives 8 rows without a count"),
        ("many.sql", "many.sql: gives a count of 1,099,511,627,776"),
        ("latin.sql", "latin.sql: not text in UTF-8"),
        ("broken.sql", "broken.sql: DuckDB cannot answer it"),
    ],
)
def test_wrong_expressions_are_told(samples: Path, text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(samples.parent)
    for name, chosen in {
        "wide": "uid FROM samples",
        "none": "uid FROM samples WHERE width < 0",
        "half": "uid, 0.5::DOUBLE AS count FROM samples",
        "null": "NULL::UUID AS uid FROM samples",
        "nothing": "uid, NULL::INTEGER AS count FROM samples",
        "many": "uid, (1::BIGINT << 40) AS count FROM samples",
        "broken": "uid FROM nowhere",
    }.items():
        Path(f"{name}.sql").write_text(f"-- What it keeps.\nSELECT {chosen}\n")
    Path("latin.sql").write_bytes("-- Größe.\nSELECT uid FROM samples".encode("latin-1"))
    with pytest.raises(UserError, match=told):
        asked(samples, lambda candidates: write_choice(candidates, text, Path("out.npy")))


def test_as_many_operands_as_allowed_are_answered(samples: Path) -> None:
    text, out = " + ".join(["no_filter"] * MOST_OPERANDS), samples.parent / "out.npy"
    choice = asked(samples, lambda candidates: write_choice(candidates, text, out))
    assert choice.most_copies == MOST_OPERANDS  # type: ignore[attr-defined]


def test_a_dictionary_or_sixteen_bytes_are_uids_too(tmp_path: Path) -> None:
    octets = [bytes.fromhex(uid) for uid in UIDS]
    for number, uids in enumerate(
        (pa.array(UIDS).dictionary_encode(), pa.array(octets), pa.array(octets, pa.binary(16)))
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"uid": uids, "count": [1] * len(UIDS)}), path)
        assert read_subset(path).uids.tolist() == uid_bytes(UIDS).tolist()


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: path.write_bytes(b""), "no sound Parquet file"),
        (lambda path: path.write_bytes(gzip.compress(b"x" * 99)), "compressed with gzip"),
        (zipped, "a zip archive"),
        (cut(table()), "no sound Parquet file"),
        (lambda path: pq.write_table(pa.table({"id": UIDS}), path), "no column uid, only id"),
    ],
)
def test_metadata_that_is_none_is_told(tmp_path: Path, write: Callable[[Path], object], told: str) -> None:
    write(tmp_path / "m.parquet")
    with pytest.raises(CandidatesError, match=told), metadata_candidates(tmp_path, [tmp_path / "m.parquet"]):
        pass
