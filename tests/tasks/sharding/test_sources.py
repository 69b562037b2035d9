"""Every form in which people have pictures: the same pairs come out, read by webdataset."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset

from testing.picture_sources import FORMS, WITHOUT_UID, expected, pairs, shard_plainly


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_its_pictures_captions_and_uids(form: str, tmp_path: Path) -> None:
    made = pairs(11)
    source = FORMS[form](tmp_path / "source", made)
    meta = shard_plainly([source], tmp_path / "out", tmp_path / "home")
    assert meta["output_count"] == len(made) and meta["output_shard_count"] == 3 and not meta["failures"]
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    got = {(next(one[e] for e in ("jpg", "png", "webp") if e in one), one["txt"].decode()) for one in found}
    assert got == {expected(form, one) for one in made}
    records = [json.loads(one["json"]) for one in found]
    if form not in WITHOUT_UID:
        assert {record["uid"] for record in records} == {one.uid for one in made}
    assert [one["__key__"] for one in found] == [record["key"] for record in records]
    assert records[0]["key"] == "000000000000" and records[5]["key"] == "000000010000"
    table = pq.read_table(tmp_path / "out" / "00000000.parquet")
    assert table["status"].to_pylist() == ["success"] * 5
