"""Score tables as filters, against sorting in Python; foreign ones in every form, and what of them is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.pool.metadata import MetadataError
from tasks.subset.algebra import chosen_counts
from tasks.subset.candidates import pool_candidates
from tasks.subset.expressions import ExpressionError, parse, rebased
from tasks.subset.filters import FilterError
from tasks.tables.uids import UID, Bytes16, uid_array, uid_hex

N = 40


class Pool:
    """As much of a pool as candidates ask for."""

    def __init__(self, place: Path, uids: Bytes16, rows: Any) -> None:
        self.samples_path, self.pool_id, self.samples_digest = place / "samples.parquet", "p", "0" * 32
        columns = rows("samples", 4)
        table = pa.table({name: pa.concat_arrays(columns[name].chunks * (N // 4)) for name in columns.column_names})
        pq.write_table(table.set_column(0, "uid", uid_array(uids)), self.samples_path)


@pytest.fixture
def uids() -> Bytes16:
    return np.sort(np.frombuffer(np.random.default_rng(0).bytes(16 * N), "S16"))


@pytest.fixture
def pool(tmp_path: Path, uids: Bytes16, rows: Any) -> Pool:
    return Pool(tmp_path, uids, rows)


def kept(pool: Pool, uids: Bytes16, text: str, home: Path) -> tuple[list[int], list[str]]:
    with pool_candidates(home, pool) as candidates:  # type: ignore[arg-type]
        counts, asked = chosen_counts(candidates, text, uids, home)
    return np.flatnonzero(counts).tolist(), [str(one) for one in asked.missing]


FORMS = {
    "uuid": lambda uids: uid_array(uids),
    "text": lambda uids: pa.array(uid_hex(uids)),
    "dashes": lambda uids: pa.array(
        [f"{u[:8]}-{u[8:12]}-{u[12:16]}-{u[16:20]}-{u[20:]}".upper() for u in uid_hex(uids)]
    ),
    "bytes": lambda uids: uid_array(uids).storage,
}


@pytest.mark.parametrize(
    ("form", "how", "many"),
    [
        ("uuid", "fraction=0.25", N // 4),
        ("text", "size=7", 7),
        ("dashes", "size=7, lowest=true", 7),
        ("bytes", "threshold=2", None),
    ],
)
def test_the_best_stay(form: str, how: str, many: int | None, pool: Pool, uids: Bytes16, tmp_path: Path) -> None:
    scores = np.random.default_rng(1).integers(0, 5, N)
    order = np.random.default_rng(2).permutation(N)
    (tmp_path / "scores").mkdir()
    table = pa.table({"uid": FORMS[form](uids[order]), "score": pa.array(scores[order], pa.float32())})
    pq.write_table(table, tmp_path / "scores" / "mine.parquet")
    worst_first = scores if "lowest" in how else -scores
    expected = np.lexsort((uids, worst_first))[:many] if many else np.flatnonzero(scores >= 2)
    for named in ('name="mine"', 'path="scores/mine.parquet"'):
        found, told = kept(pool, uids, f"score({named}, {how}) & no_filter", tmp_path)
        assert found == sorted(expected.tolist()) and told == []


def test_what_a_foreign_table_lacks_is_told(pool: Pool, uids: Bytes16, tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    strange = np.sort(np.frombuffer(draw.bytes(16 * 3), "S16"))
    scores = draw.normal(size=N)
    listed = np.concatenate([uids[:30], uids[5:7], strange])
    values = np.concatenate([scores[:30], scores[5:7], [9.0, 9.0, 9.0]])
    values[[2, 11]] = np.nan
    column = pa.array(values, mask=np.arange(len(values)) == 4)
    pq.write_table(pa.table({"id": uid_array(listed), "theirs": column, "k": values}), tmp_path / "a.parquet")
    text = 'score(path="a.parquet", uid=id, column=theirs, fraction=0.5)'
    found, told = kept(pool, uids, text, tmp_path)
    usable = [i for i in range(30) if i not in (2, 4, 11)]
    assert found == sorted(sorted(usable, key=lambda i: -scores[i])[: len(usable) // 2])
    assert told == [
        "score(a.parquet): 13 of the pool's 40 samples have no score, and are left out; 3 scores are missing or NaN; "
        "2 rows say again what another one says; 3 rows are of samples that the pool has not"
    ]
    values[30] += 1
    pq.write_table(pa.table({"id": uid_array(listed), "theirs": pa.array(values)}), tmp_path / "a.parquet")
    with pytest.raises(FilterError, match="1 uids have two scores in column 'theirs'"):
        kept(pool, uids, text, tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("score(fraction=0.3)", "it takes name="),
        ('score(name="a")', "fraction, size or threshold"),
        ('score(name="a", fraction=0.3, size=4)', "fraction, size or threshold"),
        ('score(name="b", fraction=0.3)', "no file .*b.parquet; scores of this home: a"),
        ('score(name="a", fraction=2)', "not a share from 0 to 1"),
        ('score(name="a", size=1.5)', "not a whole number"),
        ('score(name="a", threshold=nan)', "not a number"),
        ('score(name="a", size=3, column=c)', "column .*c.* is no column of numbers; those are x, y"),
        ('score(name="a", size=3)', "no column of numbers; those are x, y"),
        ('score(name="a", size=3, uid=u)', "no column 'u', only uid, x, y"),
        ('score(name="a", best=3)', "no parameter 'best'"),
        ('score(name="a", size=3, lowest=yes)', "true or false"),
    ],
)
def test_mistakes_are_told(text: str, told: str, pool: Pool, uids: Bytes16, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    table = pa.table({"uid": uid_array(uids), "x": np.arange(N), "y": np.arange(N) / 2})
    pq.write_table(table, tmp_path / "scores" / "a.parquet")
    with pytest.raises(ExpressionError, match=told):
        kept(pool, uids, text, tmp_path)


def test_uids_that_are_none_are_told(pool: Pool, uids: Bytes16, tmp_path: Path) -> None:
    for column, what in (
        (pa.array(["zz"]), "not a uid"),
        (pa.array([None], UID), "have no uid"),
        (pa.array([5]), "int64"),
    ):
        pq.write_table(pa.table({"uid": column, "score": [1.0]}), tmp_path / "a.parquet")
        with pytest.raises((MetadataError, ExpressionError), match=what):
            kept(pool, uids, 'score(path="a.parquet", size=1)', tmp_path)


def test_a_path_is_below_the_catalog() -> None:
    assert str(rebased(parse('score(path="a.parquet", size=3)'), Path("/x"))) == "score(path=/x/a.parquet, size=3)"
