"""Remote stores: the same bytes as local ones whatever goes wrong on the way, and an end to waiting."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from tasks.files.artefacts import digest
from tasks.files.remote_cache import ShardCache
from tasks.files.remote_files import RangedFile, Reader
from tasks.files.remotes import RemoteFault, RemoteOptions, file_info, is_lasting, patiently, read_ranges
from tasks.files.source_patterns import find_tars
from tasks.files.sources import common_base
from tasks.pool.pools import BuildOptions, build_pool
from tasks.pool.samples import read_images
from tasks.pool.shards import index_shard
from testing.faulty_proxy import FaultyProxy
from testing.loopback_s3 import loopback_s3, speaking_to
from testing.sample_members import read_members

QUICK = RemoteOptions(attempts=12, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=1.0, chunk_mib=1)
ROUGH = {"503": 0.08, "reset": 0.08, "cut": 0.1, "slow": 0.04}
DATA = bytes(range(256)) * 12_000  # 3 MB: three chunks


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, int]]:
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto", reason="moto, the S3 server of these tests, is not installed")
    with loopback_s3() as where:
        yield where


@pytest.fixture
def bucket(s3: tuple[str, int]) -> Iterator[str]:
    """An empty bucket of its own; S3 clients of this process speak to the server."""
    with speaking_to("http://{}:{}".format(*s3)):
        fs = fsspec.filesystem("s3")
        name = f"bucket-{time.monotonic_ns()}"
        fs.mkdir(name)
        yield f"s3://{name}"


def put(url: str, data: bytes) -> str:
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(path, data)
    return url


def test_ranges_chunks_and_passes_through_a_rough_line_are_the_files_bytes(
    s3: tuple[str, int], bucket: str, tmp_path: Path
) -> None:
    url = put(f"{bucket}/d/a.tar", DATA)
    spans = [(i, i + 700) for i in range(0, len(DATA), 600_000)]
    with FaultyProxy(s3, ROUGH, seed=1) as proxy, speaking_to(proxy.url):
        assert read_ranges(url, spans, QUICK) == [DATA[a:b] for a, b in spans]
        for cache in (None, ShardCache(tmp_path / "c", 4 << 20)):
            reader = Reader(QUICK, cache)
            file, size = reader.open(url)
            with file:
                assert (file.read(), size) == (DATA, len(DATA))
                assert file.seek(-5, os.SEEK_END) == size - 5 and file.read(9) == DATA[-5:]
            assert reader.ranges(url, spans[::-1]) == [DATA[a:b] for a, b in spans[::-1]]
    assert proxy.faults.total() > 2


def test_a_pool_on_s3_over_a_rough_line_is_the_local_pool_to_the_byte(
    s3: tuple[str, int], bucket: str, shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    for i in range(4):
        shard([m for j in range(2) for m in good(2 * i + j)], f"{i:08d}.tar")
    local = build_pool(tmp_path / "shards", tmp_path / "a")
    fsspec.filesystem("s3").put(str(tmp_path / "shards"), bucket, recursive=True)
    size = (tmp_path / "shards/00000000.tar").stat().st_size
    remote = QUICK.model_copy(update={"cache_gib": 2.5 * size / 2**30})
    with FaultyProxy(s3, ROUGH, seed=2) as proxy, speaking_to(proxy.url):
        away = build_pool(f"{bucket}/shards", tmp_path / "b", BuildOptions(remote=remote))
        assert (away.samples_digest, away.rejects_digest) == (local.samples_digest, local.rejects_digest)
        import pyarrow.parquet as pq

        rows = pq.ParquetFile(away.samples_path).read()
        assert read_images(rows, away.directory) == read_images(rows, local.directory)
        assert read_members(rows, away.directory) == read_members(rows, local.directory)
    kept = [p.stat().st_size for p in (tmp_path / "b/cache").iterdir()]
    assert proxy.faults.total() > 3 and 0 < sum(kept) <= 2.5 * size
    # The same names by glob, by braces and one by one.
    urls = [f"{bucket}/shards/{i:08d}.tar" for i in range(4)]
    named = (f"{bucket}/shards/*.tar", f"{bucket}/shards/{{00000000..00000003}}.tar", bucket, urls, "::".join(urls))
    assert [list(find_tars(source).urls) for source in named] == [urls] * 5


def test_a_store_that_stalls_or_always_fails_is_given_up_with_what_and_where(s3: tuple[str, int], bucket: str) -> None:
    url = put(f"{bucket}/a.tar", b"x")
    few = QUICK.model_copy(update={"attempts": 2, "timeout_s": 0.2})
    with FaultyProxy(s3, {"stall": 1.0}, stall_s=5) as proxy, speaking_to(proxy.url):
        began = time.monotonic()
        with pytest.raises(RemoteFault, match=r"a\.tar: could not read 1 ranges from byte 0 in 2 attempts"):
            read_ranges(url, [(0, 1)], few)
        assert time.monotonic() - began < 4


def test_what_is_lasting_is_not_tried_again(s3: tuple[str, int], bucket: str) -> None:
    with FaultyProxy(s3, {}) as proxy, speaking_to(proxy.url):
        for ask in (
            lambda: file_info(f"{bucket}/none.tar", QUICK),
            lambda: read_ranges(f"{bucket}/none.tar", [(0, 1)], QUICK),
        ):
            before = proxy.requests
            with pytest.raises(FileNotFoundError):
                ask()
            assert proxy.requests - before <= 2
    for error in (ValueError("x"), PermissionError(), OSError(22, "not satisfiable"), ImportError()):
        assert is_lasting(error)
    for error in (TimeoutError(), ConnectionResetError(), OSError(16, "SlowDown"), EOFError(), RuntimeError()):
        assert not is_lasting(error)


def test_a_failed_look_up_over_http_is_no_missing_file() -> None:
    """fsspec's http answers FileNotFoundError to anything; only a 404 behind it is one."""
    import aiohttp

    def status(code: int) -> FileNotFoundError:
        error = FileNotFoundError("url")
        error.__cause__ = aiohttp.ClientResponseError(None, (), status=code)  # type: ignore[arg-type]
        return error

    assert is_lasting(status(404)) and is_lasting(status(403)) and is_lasting(FileNotFoundError())
    assert not is_lasting(status(503)) and not is_lasting(status(429))


def test_waits_double_up_to_the_longest_and_only_passing_faults_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tasks.files.remotes.time.sleep", waits.append)
    answers = iter([ConnectionResetError()] * 5)

    def call() -> str:
        for error in answers:
            raise error
        return "done"

    options = RemoteOptions(first_wait_s=1, longest_wait_s=4)
    assert patiently("u", "try", options, call) == "done" and len(waits) == 5
    assert all(top / 2 <= wait <= top for wait, top in zip(waits, (1, 2, 4, 4, 4), strict=True))


def test_a_server_that_ignores_ranges_is_refused(tmp_path: Path) -> None:
    import http.server

    (tmp_path / "a.tar").write_bytes(b"0123456789")
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        with pytest.raises(ValueError, match="ignores ranges"):
            read_ranges(f"http://127.0.0.1:{server.server_port}/a.tar", [(2, 5)], QUICK)
    finally:
        server.shutdown()
        server.server_close()


def test_a_shard_that_is_replaced_while_it_is_read_is_not_mixed(bucket: str, tmp_path: Path) -> None:
    url = put(f"{bucket}/a.tar", DATA)
    cache = ShardCache(tmp_path / "c", 8 << 20)
    reader = Reader(QUICK, cache)
    stamp = reader.version(url)
    put(url, DATA[::-1])
    with pytest.raises(RemoteFault, match="replaced while"):
        reader._bring(url, *stamp)
    assert not list((tmp_path / "c").glob("[!.]*")) and reader.read(url) == DATA[::-1]
    put(url, DATA[:100])
    assert reader.read(url) == DATA[:100]  # the entry of the former version is not served
    with RangedFile(url, len(DATA), QUICK) as file, pytest.raises(RemoteFault, match="gave only 100"):
        file.read(5)


def test_the_cache_stays_within_its_bound_under_many_readers(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    files = {f"memory://cached/{i}.tar": bytes([i]) * (10_000 + i) for i in range(12)}
    for url, data in files.items():
        fs.pipe_file(url.removeprefix("memory://"), data)
    limit = 45_000
    cache = ShardCache(tmp_path / "cache", limit)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f".{digest(b'u')}-00.12-ab.tmp").write_bytes(bytes(40_000))  # what a killed reader left
    wrong, most = [], [0]

    def read(seed: int) -> None:
        for i in range(40):
            url = f"memory://cached/{(i * seed) % 12}.tar"
            file, size = Reader(QUICK, cache).open(url)
            with file:
                wrong.extend([url] if file.read(size) != files[url] else [])
            with open(cache.directory / ".lock") as lock:  # so that the count is of one instant
                fcntl.flock(lock, fcntl.LOCK_EX)
                most[0] = max(most[0], sum(entry.stat().st_size for entry in os.scandir(cache.directory)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, (1, 5, 7, 11)))
    assert not wrong and 0 < most[0] <= limit
    assert not list(cache.directory.glob(".*.tmp"))


def test_bases_hold_all_their_tars() -> None:
    assert common_base(["/a/b/0.tar", "/a/b/1.tar"]) == ("/a/b", ["0.tar", "1.tar"])
    assert common_base(["/a/b/0.tar", "/a/c/1.tar"]) == ("/a", ["b/0.tar", "c/1.tar"])
    assert common_base(["s3://b/0.tar", "s3://b/x/1.tar"]) == ("s3://b", ["0.tar", "x/1.tar"])
    for apart in (["s3://b/0.tar", "s3://c/0.tar"], ["/a/0.tar", "/b/0.tar"], ["/a/0.tar", "s3://b/0.tar"]):
        assert common_base(apart) == ("", apart)


def test_index_of_a_remote_shard_equals_the_local_one(shard: Callable[..., str], good: Callable[..., list]) -> None:
    path = shard([*good(1), *good(2)])
    put("memory://same/0.tar", Path(path).read_bytes())
    assert index_shard("memory://same/0.tar", "0.tar") == index_shard(path, "0.tar")
