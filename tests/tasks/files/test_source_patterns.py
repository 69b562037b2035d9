"""What names a pool: links, odd names, several sources in one string, files that are passed over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from tasks.files.local_files import absolute
from tasks.files.progress import watch
from tasks.files.remotes import RemoteOptions, split_query
from tasks.files.source_patterns import SourceError, each_source, find_tars
from tasks.pool.pools import build_pool, plan_pool
from tasks.pool.record import BuildOptions
from tasks.pool.samples import read_images
from tasks.pool.text_files import find_texts
from tasks.pool.text_records import TextColumns
from testing.whole_census import take_census
from tests.tasks.conftest import members_of, tar_of

Shard = Callable[..., str]


def files_at(root: Path, *names: str) -> None:
    """Small files; a name that ends in `.tar` holds one sample, another one for each."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar_of(members_of(number + 1)) if name.endswith(".tar") else b"x")


def names_at(root: Path, *sources: str) -> list[str]:
    """What some sources below a root name, relative to it."""
    return [str(Path(url).relative_to(root)) for url in find_tars([str(root / source) for source in sources]).urls]


def test_a_hub_cache_of_links_is_read_under_the_links_names(tmp_path: Path) -> None:
    files_at(tmp_path, "made/0.tar", "made/1.tar")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots/abc").mkdir(parents=True)
    for i in range(2):
        (tmp_path / f"made/{i}.tar").rename(tmp_path / f"blobs/{i}f00d")
        (tmp_path / f"snapshots/abc/{i}.tar").symlink_to(f"../../blobs/{i}f00d")
    links = ["snapshots/abc/0.tar", "snapshots/abc/1.tar"]
    for source in ("snapshots/abc", "snapshots/abc/*.tar", "snapshots/*/*.tar", "**/*.tar", "snapshots/abc/{0,1}.tar"):
        assert names_at(tmp_path, source) == links
    pools = [build_pool(tmp_path / "snapshots/abc", tmp_path / "a"), build_pool(tmp_path / links[0], tmp_path / "b")]
    assert [pool.samples for pool in pools] == [2, 1]
    table = pq.ParquetFile(pools[0].samples_path).read()
    assert set(table["shard"].to_pylist()) == {"0.tar", "1.tar"} and read_images(table, pools[0].directory)
    assert take_census(tmp_path / "snapshots/abc", tmp_path / "a").totals["samples"] == 2


def test_a_link_whose_blob_is_replaced_makes_another_pool(tmp_path: Path) -> None:
    files_at(tmp_path, "blob.tar", "links/other.tar")
    (tmp_path / "links/0.tar").symlink_to(tmp_path / "blob.tar")
    before = plan_pool(tmp_path / "links", tmp_path / "home").pool_id
    (tmp_path / "blob.tar").write_bytes(tar_of([*members_of(7), *members_of(8)]))
    assert plan_pool(tmp_path / "links", tmp_path / "home").pool_id != before


def test_a_linked_directory_keeps_its_name(tmp_path: Path) -> None:
    files_at(tmp_path, "real/0.tar", "real/shards/1.tar", "other/2.tar")
    (tmp_path / "mine").symlink_to("real")
    assert names_at(tmp_path, "mine", "m*/*.tar", "mine/../other") == ["mine/0.tar", "other/2.tar"]
    assert plan_pool(tmp_path / "mine", tmp_path / "home").pool_id.startswith("mine-")
    assert absolute("mine/0.tar", tmp_path) == str(tmp_path / "mine/0.tar")


def test_a_way_up_from_a_link_leads_where_the_link_does(tmp_path: Path) -> None:
    files_at(tmp_path, "far/away/here/0.tar", "far/away/1.tar", "1.tar")
    (tmp_path / "here").symlink_to("far/away/here")
    assert Path(absolute("here/../1.tar", tmp_path)).samefile(tmp_path / "far/away/1.tar")


@pytest.mark.parametrize("source", ["", "*.tar", "**/*.tar", "1.tar", "{0,1}.tar"])
@pytest.mark.parametrize("target", ["../gone", "1.tar"])
def test_a_link_to_nothing_stops_by_its_name(source: str, target: str, tmp_path: Path) -> None:
    files_at(tmp_path, "0.tar")
    (tmp_path / "1.tar").symlink_to(target)
    with pytest.raises(SourceError, match=r"/1\.tar: a link to .*fetch it again"):
        find_tars(str(tmp_path / source))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    files_at(tmp_path, "a/0.tar", "b/1.tar")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/b").symlink_to("../b")
    (tmp_path / "b/a").symlink_to("../a")
    found = names_at(tmp_path, "**/*.tar")
    assert {"a/0.tar", "b/1.tar"} <= set(found) and len(found) < 10
    assert names_at(tmp_path, "a") == ["a/0.tar"]


def test_two_sources_in_one_string_are_two_sources(tmp_path: Path) -> None:
    files_at(tmp_path, "a/0.tar", "b/0.tar", "c/1.tar")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert build_pool(f"{a}/0.tar::{b}/0.tar", tmp_path / "home").samples == 2
    for source in (f"{a}::{b}::{c}", f"{a}/*.tar::{b}::{c}/{{0..1..1}}.tar".replace("{0..1..1}", "{1,1}")):
        assert [Path(url).parent.name for url in find_tars(source).urls] == ["a", "b", "c"]
    assert absolute("a::b/0.tar", tmp_path) == f"{a}::{b}/0.tar"
    with pytest.raises(SourceError, match=r"no tar at '.*nowhere"):
        find_tars(f"{a}::{tmp_path}/nowhere.tar")


@pytest.mark.parametrize("source", ["a::", "::a", "simplecache::s3://b/0.tar", "zip://0.tar::a.zip"])
def test_half_a_pair_and_chained_urls_are_refused(source: str) -> None:
    with pytest.raises(SourceError, match="`::` stands between sources"):
        find_tars(source)


@pytest.mark.parametrize("name", ["pool [v2]", "{dirs", "dirs}", "a{1,2}", "a::b", "what?", "st*r", "[", "per%20cent"])
def test_a_name_that_is_there_stands_for_itself(name: str, tmp_path: Path) -> None:
    files_at(tmp_path, f"{name}/0.tar", f"{name}/1.tar", "v/2.tar", "a1/3.tar", "starr/4.tar")
    both = [f"{name}/0.tar", f"{name}/1.tar"]
    for source in (name, f"{name}/", f"{name}/*.tar", f"{name}/{{0,1}}.tar", f"{name}/?.tar"):
        assert names_at(tmp_path, source) == both
    assert names_at(tmp_path, f"{name}/1.tar") == both[1:]
    assert find_tars(absolute(name, tmp_path)).urls == find_tars(str(tmp_path / name)).urls
    assert build_pool(tmp_path / name, tmp_path / "home").samples == 2
    (tmp_path / name / "shards").mkdir()
    for i in range(2):
        (tmp_path / name / f"{i}.tar").rename(tmp_path / name / f"shards/{i}.tar")
    assert names_at(tmp_path, name) == [f"{name}/shards/0.tar", f"{name}/shards/1.tar"]


@pytest.mark.parametrize("source", ["{dirs", "{a,b/*.tar", "s3://bucket/{0..3.tar"])
def test_braces_that_do_not_match_are_told(source: str) -> None:
    with pytest.raises(SourceError, match="braces do not match"):
        each_source(source)


def test_files_of_other_kinds_beside_the_tars_are_counted_and_named(tmp_path: Path) -> None:
    others = ["1.tar.gz", "2.TAR", "3.tgz", "4.tar.zst", "5.tar.part", "sub/6.tar"]
    files_at(tmp_path / "pool", "0.tar", "0.parquet", "0_stats.json", "readme.md", *others)
    said: list[str] = []
    watch(lambda what, *_: said.append(what))
    try:
        plan = plan_pool(tmp_path / "pool", tmp_path / "home")
    finally:
        watch(None)
    assert {Path(url).relative_to(tmp_path / "pool").as_posix() for url in plan.passed_over} == set(others)
    (sentence,) = said
    assert "6 files are passed over" in sentence and "1.tar.gz" in sentence and "1 more" in sentence
    census = take_census(tmp_path / "pool", tmp_path / "home")
    assert census.findings["passed_over"] == 6 and not census.within_budget
    found = pq.ParquetFile(tmp_path / f"home/census/{plan.pool_id}/findings.parquet").read().to_pylist()
    assert {row["shard"] for row in found if row["kind"] == "passed_over"} == set(others)
    (tmp_path / "pool/2.TAR").unlink()
    assert take_census(tmp_path / "pool", tmp_path / "home").findings["passed_over"] == 5


def test_where_only_other_kinds_are_they_are_named(tmp_path: Path) -> None:
    files_at(tmp_path, "0.tar.gz", "1.TGZ")
    with pytest.raises(SourceError, match=r"no tar at .*2 files are passed over.*0\.tar\.gz.*1\.TGZ"):
        find_tars(str(tmp_path))


def test_a_pattern_that_fits_tars_and_other_files_takes_the_tars_and_tells(tmp_path: Path) -> None:
    files_at(tmp_path, "0.tar", "0.parquet", "x.bin")
    found = find_tars(f"{tmp_path}/*")
    assert [Path(url).name for url in found.urls] == ["0.tar"] and len(found.passed_over) == 2


def test_files_of_other_kinds_beside_texts_are_named(tmp_path: Path) -> None:
    others = ["a.json", "b.ndjson", "c.jsonl.zst", "d.JSONL", "e.csv"]
    files_at(tmp_path, "0.jsonl", "1.jsonl.gz", "licence", *others)
    found = find_texts(str(tmp_path))
    assert [Path(url).name for url in found.urls] == ["0.jsonl", "1.jsonl.gz"]
    assert {Path(url).name for url in found.passed_over} == set(others)
    plan = plan_pool(tmp_path / "0.jsonl", tmp_path / "home", BuildOptions(form=TextColumns()))
    assert plan.passed_over == (), "whoever names a file means that file"


class Signed(BaseHTTPRequestHandler):
    """Serves files to whoever has the key, by ranges, and lists nothing."""

    root: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = self.root / url.path.strip("/")
        if "key=a/b%2Bc" not in url.query.replace("%2F", "/") or not path.is_file():
            self.send_error(403)
            return
        data = path.read_bytes()
        start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end or len(data)) + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", str(hash(data)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[str]:
    handler = type("Handler", (Signed,), {"root": tmp_path})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_signed_addresses_are_addresses_not_patterns(signed: str, tmp_path: Path) -> None:
    files_at(tmp_path, "p/0.tar", "p/1.tar")
    remote = RemoteOptions(attempts=2, first_wait_s=0.0)
    key = "?key=a/b%2Bc&v=[1]*"
    for source in ([f"{signed}/p/{i}.tar{key}" for i in range(2)], f"{signed}/p/{{0,1}}.tar{key}"):
        pool = build_pool(source, tmp_path / "home", BuildOptions(remote=remote))
        table = pq.ParquetFile(pool.samples_path).read()
        assert pool.samples == 2 and len(read_images(table, pool.directory)) == 2
    census = take_census(source, tmp_path / "home", BuildOptions(remote=remote))
    assert census.totals["samples"] == 2
    with pytest.raises(SourceError, match="no tar at"):
        find_tars(f"{signed}/p/0.tar?key=wrong", remote)


def test_what_a_question_mark_is_depends_on_what_follows() -> None:
    assert split_query("https://h/a.tar?download") == ("https://h/a.tar", "?download")
    assert split_query("https://h/a.tar?x=1&y=b.tar") == ("https://h/a.tar", "?x=1&y=b.tar")
    assert split_query("https://h/0?.tar") == ("https://h/0?.tar", "")
    assert split_query("s3://b/0?.tar?x=1") == ("s3://b/0?.tar?x=1", "")
