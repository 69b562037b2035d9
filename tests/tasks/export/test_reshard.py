"""Resharding: the same multiset of samples and bytes, in equal shards, the same bytes always, and no loss unsaid."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flows.cli import main
from tasks.export import shard_copies, shard_reads
from tasks.export.exports import verify_datacomp
from tasks.export.lost_samples import LostSamples
from tasks.export.reshard import Resharded, ReshardOptions, reshard
from tasks.files.artefacts import DiskFull
from tasks.files.export_directories import ExportError
from tasks.files.progress import watch
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions
from tasks.subset.files import SubsetError, read_subset
from tasks.tables.uids import content_uid, uid_hex
from testing.manifests import write_manifest

ROOT = Path(__file__).parents[3]
COUNTS = [0, 3, 1, 2, 0, 1, 5, 1, 1, 2, 1, 3]
Members = list[tuple[str, bytes]]


@pytest.fixture
def pool(shard: Callable[..., str], good: Callable[..., Members], tmp_path: Path) -> Path:
    """The directory of a pool of 12 samples in two tars; 6 has a uid without its leading zero, 7 its json first, 8
    a json that begins with another entry."""
    members = {number: good(number, n=number) for number in range(12)}
    png, record, text = members[6]
    members[6] = [png, (record[0], json.dumps({"uid": "06" * 16, "n": 6}).replace("06" * 16, "6" * 31).encode()), text]
    members[7] = [members[7][1], members[7][2], members[7][0]]
    members[8][1] = (members[8][1][0], json.dumps({"n": 8, "uid": "08" * 16}).encode())
    for number, part in enumerate((range(7), range(7, 12))):
        shard([member for i in part for member in members[i]], f"{number}.tar")
    return build_pool(tmp_path / "shards", tmp_path / "home").directory


@pytest.fixture
def manifest(pool: Path, tmp_path: Path) -> Path:
    uids = pq.ParquetFile(pool / "samples.parquet").read()["uid"]
    return write_manifest(tmp_path / "run", 1, uids, COUNTS, {"round": 1})


def options(shard_size: int = 4, seed: int = 1, workers: int = 1, **more: object) -> ReshardOptions:
    return ReshardOptions.model_validate({"shard_size": shard_size, "seed": seed, "workers": workers, **more})


def bag(manifest: Path) -> Counter[str]:
    subset = read_subset(manifest)
    return Counter(dict(zip(uid_hex(subset.uids), subset.counts.tolist(), strict=True)))


def read_back(out: Path) -> list[dict[str, bytes]]:
    """Every sample of a directory of shards, read by `tarfile`: its members by extension, and its key."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.mode) == (0, 0, 0o444)
                key, extension = member.name.split(".")
                data = tar.extractfile(member)
                assert data is not None
                samples.setdefault(f"{path.name}/{key}", {"key": key.encode()})[extension] = data.read()
    return list(samples.values())


def same_files(one: Path, other: Path) -> bool:
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)


def source_bytes(pool: Path) -> dict[str, tuple[bytes, bytes]]:
    """Image and caption of every sample of a pool, cut out of its tars by hand."""
    rows = pq.ParquetFile(pool / "samples.parquet").read().to_pylist()
    base = Path(json.loads((pool / "source.json").read_text())["base"])
    cut = lambda row, m: (base / row["shard"]).read_bytes()[row[f"{m}_offset"] :][: row[f"{m}_size"]]  # noqa: E731
    return {row["uid"].hex: (cut(row, "image"), cut(row, "text")) for row in rows}


def test_shards_hold_the_multiset_and_webdataset_reads_them(manifest: Path, pool: Path, tmp_path: Path) -> None:
    import webdataset

    out = tmp_path / "out"
    result = reshard(pool, manifest, out, options())
    meta = json.loads((out / "meta.json").read_text())
    urls = [str(out / meta["output_shard_format"].format(i)) for i in range(meta["output_shard_count"])]
    assert result == Resharded(out, 5, 20, 10, 0, 0, sum(path.stat().st_size for path in out.glob("*.tar")))
    assert sorted(os.listdir(out)) == sorted(
        [f"{i:08d}{end}" for i in range(5) for end in (".tar", "_stats.json")] + ["meta.json", "sample_ids.npy"]
    )
    known, seen = source_bytes(pool), Counter[str]()
    for number, url in enumerate(urls):
        read = list(webdataset.WebDataset(url, shardshuffle=False))
        uids = [json.loads(sample["json"])["uid"] for sample in read]
        assert len(read) == 4 == json.loads((out / f"{number:08d}_stats.json").read_text())["successes"]
        assert len(set(uids)) == len(uids), "copies of one uid in one shard"
        assert all((sample["png"], sample["txt"]) == known[uid] for uid, sample in zip(uids, read, strict=True))
        assert [sample["__key__"].split("-")[0] for sample in read] == uids
        seen.update(uids)
    assert seen == bag(manifest)
    assert verify_datacomp(out / "sample_ids.npy", list(seen)).records == 20


def test_the_example_of_the_docs_trains_on_an_export(manifest: Path, pool: Path, tmp_path: Path) -> None:
    from tasks.evaluation.encoders import open_clip_encoder

    reshard(pool, manifest, tmp_path / "out", options())
    model, trained = str(ROOT / "catalogs" / "models" / "emoji.json"), tmp_path / "model.pt"
    main = runpy.run_path(str(ROOT / "docs" / "train_on_subset.py"))["main"]
    words = ["--model", model, "--batch", "12", "--out", str(trained)]
    with torch.random.fork_rng():
        one = main([str(tmp_path / "out"), *words, "--steps", "3"])
        again = main([str(tmp_path / "out"), *words, "--steps", "3"])
    assert len(one) == 3 and all(0 < loss < 20 for loss in one), "of 20 samples: the third step is in a third epoch"
    assert again == one and len(set(one)) == 3
    assert torch.isfinite(open_clip_encoder(trained, model).texts(["a cat"])).all()


def test_pool_to_subset_to_shards_to_pool_keeps_uids_and_bytes(manifest: Path, pool: Path, tmp_path: Path) -> None:
    """Every sample once: the same pool again. With copies: the same multiset of bytes, the pool has one of each."""
    reshard(pool, None, tmp_path / "once", options(3))
    again = build_pool(tmp_path / "once", tmp_path / "home2")
    assert source_bytes(again.directory) == source_bytes(pool)
    columns = ["uid", "text", "width", "height", "image_format", "n"]
    before, after = (pq.ParquetFile(p / "samples.parquet").read(columns).to_pylist() for p in (pool, again.directory))
    assert after == before
    reshard(again.directory, None, tmp_path / "twice", options(5, seed=9))
    third = build_pool(tmp_path / "twice", tmp_path / "home2")
    keep = {**options(7).model_dump(), "overwrite": True}
    reshard(third.directory, manifest, tmp_path / "once", ReshardOptions(**keep))
    known = source_bytes(pool)
    expected = Counter({(uid, *known[uid]): count for uid, count in bag(manifest).items()})
    found = Counter((json.loads(s["json"])["uid"], s["png"], s["txt"]) for s in read_back(tmp_path / "once"))
    assert found == expected
    copies = build_pool(tmp_path / "once", tmp_path / "home2", BuildOptions(max_rejects=1.0))
    assert (copies.samples, copies.reasons) == (10, {"duplicate_uid": 10})


def test_json_members_are_kept_or_name_their_uid(manifest: Path, pool: Path, tmp_path: Path) -> None:
    reshard(pool, manifest, tmp_path / "out", options())
    records = {sample["key"].decode().split("-")[0]: sample["json"] for sample in read_back(tmp_path / "out")}
    assert records["03" * 16] == json.dumps({"uid": "03" * 16, "n": 3}).encode()
    assert records["08" * 16] == json.dumps({"n": 8, "uid": "08" * 16}).encode()
    assert all(json.loads(record)["uid"] == uid for uid, record in records.items())
    assert json.loads(records["0" + "6" * 31]) == {"uid": "0" + "6" * 31, "n": 6}


def test_samples_without_a_uid_get_a_json_that_names_their_content(
    shard: Callable[..., str], good: Callable[..., Members], tmp_path: Path
) -> None:
    """A pool whose samples have no json, or one without a uid: known by their content, here and in the new pool."""
    bare = [[png, text] for png, _, text in (good(1), good(2))]
    png, record, text = good(3)
    shard([*bare[0], *bare[1], png, (record[0], b'{"n": 3}'), text])
    pool = build_pool(tmp_path / "shards", tmp_path / "home").directory
    out = reshard(pool, None, tmp_path / "out", options(1)).path
    for sample in read_back(out):
        uid = content_uid(sample["png"], sample["txt"])
        more = {"n": 3} if sample["txt"] == b"caption 3" else {}
        assert json.loads(sample["json"]) == {"uid": uid, **more} and sample["key"].decode() == f"{uid}-0"
    assert source_bytes(build_pool(out, tmp_path / "home").directory) == source_bytes(pool)
    shard([*bare[1], *bare[0], png, (record[0], b'{"n": 3}'), text])
    with pytest.raises(LostSamples, match="1 shard_changed"):
        reshard(pool, None, tmp_path / "new", options(1))


def test_no_byte_depends_on_workers_windows_or_the_form_of_the_subset(
    manifest: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reshard(pool, manifest, tmp_path / "a", options()).path
    two = reshard(pool, reference / "sample_ids.npy", tmp_path / "b", options(workers=2)).path
    monkeypatch.setattr(shard_copies, "WINDOW", 1)
    monkeypatch.setattr(shard_reads, "PIECE", 1)
    assert same_files(reference, two) and same_files(reference, reshard(pool, manifest, tmp_path / "c", options()).path)
    monkeypatch.setattr(
        shard_copies, "copy_straight", lambda hand, layout, window, *_: np.zeros(len(window.places), bool)
    )
    assert same_files(reference, reshard(pool, manifest, tmp_path / "e", options()).path)
    other = reshard(pool, manifest, tmp_path / "d", options(seed=2)).path
    assert (other / "00000000.tar").read_bytes() != (reference / "00000000.tar").read_bytes()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_remote_pool_gives_the_same_bytes(manifest: Path, pool: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for path in (tmp_path / "shards").glob("*.tar"):
        store.pipe_file(f"/reshard-test/shards/{path.name}", path.read_bytes())
    remote = build_pool("memory://reshard-test/shards", tmp_path / "far").directory
    out = reshard(remote, manifest, tmp_path / "out", options()).path
    assert same_files(out, reshard(pool, manifest, tmp_path / "near", options()).path)
    store.rm("/reshard-test/shards/1.tar")
    with pytest.raises(LostSamples, match="missing_shard"):
        reshard(remote, manifest, tmp_path / "new", options())


def test_what_is_there_stays_unless_told_otherwise(manifest: Path, pool: Path, tmp_path: Path) -> None:
    out = reshard(pool, manifest, tmp_path / "out", options()).path
    inode = (out / "meta.json").stat().st_ino
    reshard(pool, manifest, out, options())
    assert (out / "meta.json").stat().st_ino == inode
    with pytest.raises(ExportError, match=r"not empty, and not this export.*old tars.*--overwrite"):
        reshard(pool, manifest, out, options(shard_size=10))
    assert reshard(pool, manifest, out, options(shard_size=10, overwrite=True)).shards == 2
    assert len(list(out.glob("*.tar"))) == 2, "stale tars stayed"
    (out / "00000001.tar").unlink()
    with pytest.raises(ExportError, match=r"lacks 1 tars \['00000001.tar'\]"):
        reshard(pool, manifest, out, options(shard_size=10))
    assert reshard(pool, manifest, out, options(shard_size=10, overwrite=True)).shards == 2
    assert len(list(out.glob("*.tar"))) == 2
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match="1 entries that no export makes, first 'thesis"):
        reshard(pool, manifest, out, options(overwrite=True))
    (tmp_path / "empty").mkdir()
    assert reshard(pool, manifest, tmp_path / "empty", options()).shards == 5
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file; shards are written into a directory"):
        reshard(pool, manifest, tmp_path / "file", options())
    with pytest.raises(ExportError, match="no finished pool"):
        reshard(tmp_path, manifest, tmp_path / "new", options())


def test_lost_samples_are_told_counted_and_bounded(pool: Path, tmp_path: Path, uid: Callable[[int], str]) -> None:
    """Dead links are known before a tar is opened; a budget lets the rest go on in equal shards; rows name the lost."""
    dead = write_manifest(tmp_path / "run", 0, [uid(1), uid(2), uid(3), uid(200), uid(201)], [1, 1, 2, 1, 2], {})
    with pytest.raises(LostSamples, match=r"3 of 7 samples .* 0 may be .*: 3 not_in_pool\. First: c8c8.*lost.parquet"):
        reshard(pool, dead, tmp_path / "out", options(2))
    assert not (tmp_path / "out").exists()
    with pytest.raises(LostSamples, match="2 may be"):
        reshard(pool, dead, tmp_path / "out", options(2, max_lost=0.4))
    result = reshard(pool, dead, tmp_path / "out", options(2, max_lost=3))
    assert (result.shards, result.samples, result.distinct, result.lost) == (2, 4, 3, 3)
    lost = pq.read_table(tmp_path / "out/lost.parquet")
    assert list(zip(uid_hex(lost["uid"]), lost["copies"].to_pylist(), strict=True)) == [(uid(200), 1), (uid(201), 2)]
    with pytest.raises(LostSamples, match="complete but for 3 samples, and 0 may be missing"):
        reshard(pool, dead, tmp_path / "out", options(2))
    foreign = write_manifest(tmp_path / "run", 1, [uid(200)], [1], {})
    with pytest.raises(SubsetError, match="nothing of the subset is in the pool"):
        reshard(pool, foreign, tmp_path / "new", options(2, max_lost=1.0))


def test_a_reject_of_the_pool_keeps_its_reason(
    shard: Callable[..., str], good: Callable[..., Members], tmp_path: Path, uid: Callable[[int], str]
) -> None:
    bad = good(2)
    bad[0] = (bad[0][0], b"no picture")
    shard([*good(1), *bad])
    pool = build_pool(tmp_path / "shards", tmp_path / "home", BuildOptions(max_rejects=1)).directory
    subset = write_manifest(tmp_path / "run", 0, [uid(1), uid(2)], [1, 1], {})
    with pytest.raises(LostSamples, match="1 undecodable_image"):
        reshard(pool, subset, tmp_path / "out", options())


def test_dead_links_are_told_from_uids_of_another_pool(
    shard: Callable[..., str], good: Callable[..., Members], tmp_path: Path, uid: Callable[[int], str]
) -> None:
    """By the tables that img2dataset leaves beside the tars; one that is damaged says nothing."""
    shard(good(1), "00000000.tar")
    shard(good(2), "00000001.tar")
    rows = {"uid": [uid(1), uid(3)], "status": ["success", "failed_to_download"], "error_message": [None, "HTTP 404"]}
    pq.write_table(pa.table(rows), tmp_path / "shards/00000000.parquet")
    (tmp_path / "shards/00000001.parquet").write_bytes(b"PAR1 junk")
    pool = build_pool(tmp_path / "shards", tmp_path / "home").directory
    subset = write_manifest(tmp_path / "run", 0, [uid(1), uid(3), uid(4)], [1, 2, 1], {})
    with pytest.raises(LostSamples, match="2 dead_link; 1 not_in_pool"):
        reshard(pool, subset, tmp_path / "out", options())
    reshard(pool, subset, tmp_path / "out", options(max_lost=3))
    lost = pq.read_table(tmp_path / "out/lost.parquet").to_pylist()
    assert [(row["uid"].hex, row["copies"], row["reason"]) for row in lost] == [
        (uid(3), 2, "dead_link"),
        (uid(4), 1, "not_in_pool"),
    ]
    assert (lost[0]["shard"], lost[0]["detail"]) == ("00000000.parquet", "failed_to_download: HTTP 404")


def test_a_tar_that_changed_since_it_was_indexed_gives_no_wrong_sample(
    manifest: Path, pool: Path, tmp_path: Path, good: Callable[..., Members], tar: Callable[..., bytes]
) -> None:
    """Another sample in the same place, a cut, other bytes, no file: lost, and retried when the tar is back."""
    path = tmp_path / "shards/1.tar"
    sound = path.read_bytes()
    reference = reshard(pool, manifest, tmp_path / "reference", options()).path
    swapped = [member for i in (8, 7, 9, 10, 11) for member in (good(i, n=i))]
    for change, reason in ((tar(swapped), "shard_changed"), (sound[:4000], "shard_changed"), (b"", "shard_changed")):
        path.write_bytes(change)
        with pytest.raises(LostSamples, match=reason):
            reshard(pool, manifest, tmp_path / "out", options())
    path.unlink()
    with pytest.raises(LostSamples, match="missing_shard"):
        reshard(pool, manifest, tmp_path / "out", options())
    partly = reshard(pool, manifest, tmp_path / "partly", options(max_lost=10))
    lost = pq.read_table(tmp_path / "partly/lost.parquet")
    assert partly.lost == sum(lost["copies"].to_pylist()) > 0 and partly.samples == 20 - partly.lost
    assert Counter(s["key"].decode().split("-")[0] for s in read_back(partly.path)) == Counter(
        {uid: n for uid, n in bag(manifest).items() if uid not in uid_hex(lost["uid"])}
    )
    path.write_bytes(sound)
    assert same_files(reshard(pool, manifest, tmp_path / "out", options()).path, reference)


def many(shard: Callable[..., str], picture: Callable[..., bytes], tmp_path: Path, size: int = 40, n: int = 30) -> Path:
    """The directory of a pool of n samples, each with a picture of `size` by `size` pixels."""
    png = picture(0, (size, size))
    members = [
        (f"{i:05d}.{extension}", data)
        for i in range(n)
        for extension, data in (("png", png), ("json", b'{"uid": "%032x"}' % i), ("txt", b"caption %d" % i))
    ]
    half = len(members) // 2
    for number, part in enumerate((members[:half], members[half:])):
        shard(part, f"{number}.tar")
    return build_pool(tmp_path / "shards", tmp_path / "home").directory


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    shard: Callable[..., str], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    pool = many(shard, picture, tmp_path)
    command = [sys.executable, "-m", "flows.cli", "reshard", str(pool), "--out", str(tmp_path / "out")]
    command += ["--shard-size", "1", "--workers", "2"]
    writer = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    work = tmp_path / ".out.reshard"
    while len(list((work / "done").glob("*.json"))) < 5:
        assert writer.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    with pytest.raises(ExportError, match="another process is writing it"):
        reshard(pool, None, tmp_path / "out", options(1))
    children = _children(writer.pid)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "workers outlive the process that began them"
        time.sleep(0.01)
    done = {path.name for path in (work / "done").glob("*.json")}
    assert 5 <= len(done) < 30 and not (tmp_path / "out").exists()
    inodes = {name: (work / "shards" / f"{name[:8]}.tar").stat().st_ino for name in done}
    with pytest.raises(ExportError, match=f"unfinished export .* {len(done)} shards of it are done"):
        reshard(pool, None, tmp_path / "out", options(2))
    reshard(pool, None, tmp_path / "out", options(1, seed=0))
    assert all((tmp_path / "out" / f"{name[:8]}.tar").stat().st_ino == inodes[name] for name in done)
    assert same_files(tmp_path / "out", reshard(pool, None, tmp_path / "reference", options(1, seed=0)).path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_a_clear_stop_and_no_loss(
    shard: Callable[..., str], picture: Callable[..., bytes], tmp_path: Path, small_disk: Path
) -> None:
    pool = many(shard, picture, tmp_path, size=140, n=24)  # 1.4 MB
    with pytest.raises(DiskFull, match="give the same command again"):
        reshard(pool, None, small_disk / "out", options(24))
    assert not list(small_disk.rglob("*.tar")) and not list(small_disk.rglob("*.tmp"))
    if os.path.ismount(small_disk):  # filled by somebody else while it works
        half = write_manifest(tmp_path, 0, [f"{i:x}" for i in range(8)], [1] * 8, {})
        watch(lambda _, done, __: _fill(small_disk / "filler") if done == 2 else None)
        with pytest.raises(DiskFull, match="finished work is kept"):
            reshard(pool, half, small_disk / "out", options(1))
        watch(None)
        (small_disk / "filler").unlink()
        assert len(list(small_disk.rglob("*.tar"))) == 2
        out = reshard(pool, half, small_disk / "out", options(1)).path
        assert same_files(out, reshard(pool, half, tmp_path / "reference", options(1)).path)


def test_the_command_indexes_tars_and_says_by_its_status_what_is_lost(
    shard: Callable[..., str],
    good: Callable[..., Members],
    uid: Callable[[int], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = good(2)
    broken[0] = (broken[0][0], b"no picture")
    shard([*good(1), *broken, *good(3)])
    subset = write_manifest(tmp_path / "run", 0, [uid(1), uid(2)], [2, 1], {})
    command = ["reshard", str(tmp_path / "shards"), "--home", str(tmp_path / "home"), "--workers", "1"]
    command += ["--subset", str(subset), "--out", str(tmp_path / "out"), "--shard-size", "1"]
    assert main(command) == 1 and "1 undecodable_image" in capsys.readouterr().err
    assert main([*command, "--max-lost", "0.4"]) == 0
    told = capsys.readouterr().out
    assert "2 samples (1 distinct) in 2 shards" in told and "1 lost, see lost.parquet there" in told
    assert main([*command[:-2], "--max-lost", "1", "--overwrite"]) == 0
    assert "1 copies share a shard" in capsys.readouterr().out
    assert main(["reshard", str(tmp_path / "none"), "--out", str(tmp_path / "new")]) == 1
    assert "no tar at" in capsys.readouterr().err


def test_the_official_resharder_takes_subset_and_shards(manifest: Path, pool: Path, tmp_path: Path) -> None:
    """Runs where MGD_DATACOMP names a checkout of it and MGD_DATACOMP_PYTHON an interpreter with its requirements."""
    checkout, python = os.environ.get("MGD_DATACOMP"), os.environ.get("MGD_DATACOMP_PYTHON")
    if not checkout or not python:
        pytest.skip("no checkout of DataComp")
    reshard(pool, None, tmp_path / "all", options(3))
    ours = reshard(pool, manifest, tmp_path / "ours", options()).path
    (tmp_path / "theirs").mkdir()
    command = [python, f"{checkout}/resharder.py", "-i", tmp_path / "all", "-o", tmp_path / "theirs"]
    command += ["-s", ours / "sample_ids.npy", "-j", "1"]
    subprocess.run(command, check=True, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}, capture_output=True)
    strip = lambda samples: Counter(tuple(sorted(sample.items())) for sample in samples)  # noqa: E731
    with tarfile.open(tmp_path / "theirs/00000000.tar") as tar:
        theirs: dict[str, dict[str, bytes]] = {}
        for member in tar:
            key, extension = member.name.split(".")
            data = tar.extractfile(member)
            theirs.setdefault(key, {"key": key.encode()})[extension] = data.read() if data else b""
    assert strip(list(theirs.values())) == strip(read_back(ours))


def _children(parent: int) -> list[int]:
    lines = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line) for line in lines.split()]


def _fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            shutil.disk_usage(path)
