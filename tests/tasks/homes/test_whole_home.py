"""A whole curation in a home at a URL, and what an empty machine is told of it when it brings nothing unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from tasks.homes import syncing
from tasks.homes.opening import opened
from tasks.homes.stores import Store
from tasks.homes.working_copies import CACHE
from tasks.report.reports import result_table, write_report
from tasks.tables.scan import scan
from testing.small_catalog import curate_plainly, published, small_catalog


@pytest.mark.slow
def test_every_door_brings_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, local, url = small_catalog(tmp_path), tmp_path / "local", f"file://{tmp_path}/there"
    write_report(local, curate_plainly(catalog, local).name)
    monkeypatch.setenv(CACHE, str(tmp_path / "first"))
    with opened(url) as home:
        write_report(home, curate_plainly(catalog, home).name)
    monkeypatch.setattr(syncing, "SMALL", -1)
    answers = []
    for number, place in enumerate((str(local), url)):
        said = []
        out = tmp_path / f"out-{number}"
        out.mkdir()
        (run,) = (path.name for path in (local / "runs").iterdir())
        for case, words in enumerate(
            (
                ["sql", "select uid, g_sum, count from sample_outcomes order by 1", "--format", "csv"],
                ["sql", "select subset, samples from comparison order by all", "--format", "csv", "--run", "all"],
                ["export", "--format", "datacomp", "--out", str(out / "a.npy")],
                ["export", "--format", "webdataset", "--out", str(out / "shards")],
                ["subset", f"run(id='{run}')", "--run", run, "--out", str(out / "b.npy")],
                ["report"],
            )
        ):
            monkeypatch.setenv(CACHE, str(tmp_path / f"empty-{case}"))
            assert main([*words, "--home", place]) == 0, words
            told = capsys.readouterr().out
            said.append(told if words[0] == "sql" else "")
        monkeypatch.setenv(CACHE, str(tmp_path / "empty-scan"))
        said.append(scan(place, "counts").collect().write_csv())
        with opened(place, writes=False) as path:
            said.append(result_table(path, run))
        files = {
            str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.suffix in (".npy", ".tar")
        }
        answers.append((said, files))
    assert answers[0][0] == answers[1][0]
    assert answers[0][1] == answers[1][1] and len(answers[0][1]) >= 3
    monkeypatch.setenv(CACHE, str(tmp_path / "empty-all"))
    monkeypatch.setattr(syncing, "SMALL", 1 << 30)
    with opened(url, writes=False) as path:
        assert published(path / "runs" / run) == published(local / "runs" / run)
    monkeypatch.setattr(syncing, "SMALL", -1)
    monkeypatch.setenv(CACHE, str(tmp_path / "again"))
    with opened(url) as home:
        before = {
            path: entry.modified
            for path, entry in Store(url).list().items()
            if "/work/round-" in path or path.endswith(".safetensors")
        }
        curate_plainly(catalog, home)
    assert {path: entry.modified for path, entry in Store(url).list().items() if path in before} == before
    assert main(["remove", run, "--home", url]) == 0
    assert not [path for path in Store(url).list() if run in path]
    monkeypatch.setenv(CACHE, str(tmp_path / "first"))
    capsys.readouterr()
    assert main(["runs", "--home", url]) == 0 and "no runs in" in capsys.readouterr().out
