"""A pool joined stretch by stretch has the bytes of one joined at once: duplicates, mixed types, metadata and all."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.pool import joins as pool_joins
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, PoolRecord
from tasks.tables import published as tables
from tasks.tables import streams as table_streams
from tasks.tables.uids import uid_hex
from testing.datacomp_pool import DatacompPool, make_pool

LENIENT = BuildOptions(max_rejects=1.0)


@pytest.fixture
def spoilt(tmp_path: Path) -> DatacompPool:
    """40 links in 5 shards: uids twice within and across shards, types that differ, a number too large, no uid."""
    pool = make_pool(tmp_path / "pool", shards=5, size=8)
    samples = pool.alive()
    for one, other in ((3, 20), (3, 30), (5, 6)):
        samples[other].uid = samples[one].uid
        samples[other].record["uid"] = samples[one].uid
    for i, one in enumerate(samples):
        one.record |= {"mixed": [1, 2.5, None][i % 3], "whole": i, "odd": ["x", 3, [1]][i % 3], "none": None}
        one.record |= {"late": True} if i > 25 else {}
    samples[11].record["whole"] = 1 << 70
    pool.write()
    rows = pool.metadata_table()
    halves = rows.slice(0, 17), rows.slice(17).append_column("extra", pa.array(np.arange(rows.num_rows - 17)))
    seen: set[str] = set()
    for name, half in zip(("a", "b"), halves, strict=True):
        uids = half["uid"].to_pylist()
        fresh = [i for i, uid in enumerate(uids) if not (uid in seen or seen.add(uid))]
        half = half.take(pa.array(fresh)).drop_columns(["face_bboxes"])
        if name == "b":
            at = half.schema.get_field_index("original_width")
            half = half.set_column(at, "crawled_width", half["original_width"].cast(pa.float64()))
        pq.write_table(half, pool.metadata().with_name(f"{name}.parquet"))
    pool.metadata().unlink()
    return pool


def files_of(record: PoolRecord) -> list[bytes]:
    return [path.read_bytes() for path in (record.samples_path, record.rejects_path, record.directory / "pool.json")]


@pytest.mark.parametrize("stretch", [1, 3, 10, 31])
def test_in_stretches_the_bytes_are_those_at_once(
    stretch: int, spoilt: DatacompPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tables, table_streams):
        monkeypatch.setattr(module, "ROW_GROUP", 9)
    shards = str(spoilt.tar(0).parent)
    for metadata in (None, ()):
        options = LENIENT.model_copy(update={"metadata": metadata})
        whole = build_pool(shards, tmp_path / "whole", options)
        monkeypatch.setattr(pool_joins, "STRETCH", stretch)
        monkeypatch.setattr(pool_joins, "WAITING", stretch)
        home = tmp_path / f"streamed-{metadata}"
        streamed = build_pool(shards, home, options)
        monkeypatch.setattr(pool_joins, "STRETCH", 1 << 20)
        monkeypatch.setattr(pool_joins, "WAITING", 1 << 20)
        assert files_of(streamed) == files_of(whole)
        assert whole.reasons["duplicate_uid"] == 3 and (whole.without_metadata is None) == (metadata == ())
        assert os.listdir(home / ".staging") == []
    names = pq.read_schema(build_pool(shards, tmp_path / "whole", LENIENT).samples_path)
    assert str(names.field("mixed").type) == "double" and str(names.field("whole").type) == "string"
    assert {"late", "extra", "clip_l14_similarity_score", "crawled_width"} <= set(names.names)


def test_shards_without_uids_are_rejected_in_stretches_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(tmp_path / "pool", shards=3, size=8)
    for one in pool.shards[1]:
        one.record.pop("uid")
    pool.write()
    shards, options = str(pool.tar(0).parent), LENIENT.model_copy(update={"metadata": ()})
    whole = build_pool(shards, tmp_path / "whole", options)
    monkeypatch.setattr(pool_joins, "STRETCH", 4)
    assert files_of(build_pool(shards, tmp_path / "streamed", options)) == files_of(whole)
    assert whole.reasons == {"missing_uid": 7}


def test_the_first_sample_of_a_uid_stays_and_the_others_name_it(spoilt: DatacompPool, tmp_path: Path) -> None:
    first: dict[str, tuple[str, str]] = {}
    later: list[tuple[str, str, str, str]] = []
    for number in range(len(spoilt.shards)):
        with tarfile.open(spoilt.tar(number)) as tar:
            records = [(Path(m.name).stem, json.load(tar.extractfile(m))) for m in tar if m.name.endswith(".json")]
        for key, record in records:
            place, uid = (spoilt.tar(number).name, key), record["uid"]
            if first.setdefault(uid, place) != place:
                later.append((uid, *place, f"first seen in {first[uid][0]}, key {first[uid][1]}"))
    record = build_pool(str(spoilt.tar(0).parent), tmp_path / "home", LENIENT)
    samples = pq.ParquetFile(record.samples_path).read(["uid", "shard", "key"])
    places = zip(samples["shard"].to_pylist(), samples["key"].to_pylist(), strict=True)
    kept = dict(zip(uid_hex(samples["uid"]), places, strict=True))
    assert later and kept == first and list(kept) == sorted(kept)
    rejects = pq.ParquetFile(record.rejects_path).read()
    rows = zip(uid_hex(rejects["uid"]), *(rejects[c].to_pylist() for c in ("shard", "member", "detail")), strict=True)
    assert list(rows) == later
