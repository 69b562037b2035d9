"""Overrides: what they change, what is refused, and that a run keeps the catalog as it was with them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tasks.catalog.catalogs import CatalogError, load_catalog
from tasks.catalog.overrides import as_toml, overridden, parsed_overrides
from tasks.curation.begin import begin_run
from tasks.files.package_data import CATALOGS
from tasks.pool.pools import build_pool
from testing.small_catalog import small_catalog


def test_the_command_lines_values_are_toml_or_text() -> None:
    texts = ["descent.rounds=5", "a.b = [1, 2.5]", "runtime.device=cuda:1", "x=true", "s=a=b", 'q="5"']
    assert parsed_overrides(texts) == {
        "descent.rounds": 5, "a.b": [1, 2.5], "runtime.device": "cuda:1", "x": True, "s": "a=b", "q": "5",
    }  # fmt: skip
    for text in ("descent.rounds", "=5", ""):
        with pytest.raises(CatalogError, match="a key and its value are expected"):
            parsed_overrides([text])


def test_overrides_are_checked_as_the_file_is(tmp_path: Path) -> None:
    path = small_catalog(tmp_path)
    changed = load_catalog(path, {"descent.rounds": 1, "descent.max_count": 3, "descent.momentum": None})
    assert (changed.descent.rounds, changed.descent.max_count, changed.descent.momentum) == (1, 3, 0.0)
    assert load_catalog(path).descent.momentum == 1.0
    with pytest.raises(CatalogError, match=r"unknown key 'descent\.ronds'; did you mean 'rounds'"):
        load_catalog(path, {"descent.ronds": 1})
    with pytest.raises(CatalogError, match=r"unknown key 'desent'; did you mean 'descent'"):
        load_catalog(path, {"desent.rounds": 1})
    with pytest.raises(CatalogError, match=r"'descent\.rounds' = 'many'"):
        load_catalog(path, {"descent.rounds": "many"})
    with pytest.raises(CatalogError, match="'name' has a value, and is no section"):
        load_catalog(path, {"name.first": 1})


@pytest.mark.parametrize("path", sorted(CATALOGS.rglob("*.toml")), ids=lambda path: path.stem)
def test_a_catalog_written_again_says_the_same(path: Path) -> None:
    content = tomllib.loads(path.read_text())
    content["odd"] = {'a "key"\x7f': [{"x": 1e-06, "y": "ü\\n\n"}], "many": [True, 1.5]}
    assert tomllib.loads(as_toml(content)) == content


def test_overrides_are_part_of_a_runs_identity_and_record(tmp_path: Path) -> None:
    path = small_catalog(tmp_path)
    pool = build_pool(str(load_catalog(path).pool.source), tmp_path, load_catalog(path).pool.build_options())
    plain, same = begin_run(tmp_path, path, pool), begin_run(tmp_path, path, pool, {"descent.rounds": 2})
    other = begin_run(tmp_path, path, pool, {"descent.rounds": 1, "comparison.subsets": ["mgd"]})
    assert plain.id == same.id != other.id
    kept = tomllib.loads((other.directory / "catalog.toml").read_text())
    said = overridden(tomllib.loads(path.read_text()), {"descent.rounds": 1, "comparison.subsets": ["mgd"]})
    assert kept == said and other.load(other.directory).catalog.descent.rounds == 1
