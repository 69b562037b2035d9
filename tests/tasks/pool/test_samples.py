"""Ranged reads: the right bytes from any file system, and nothing but the range."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tasks.pool.pools import build_pool
from tasks.pool.samples import ShardChanged, read_images, read_sample, resolve
from tasks.pool.shards import index_shard
from testing.sample_members import read_members


class _Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges, and counts the bytes that it sends."""

    sent = 0

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), int(wanted[2] or len(data) - 1) + 1) if wanted else (0, len(data))
        part = data[start:end]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        type(self).sent += len(part)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of an http server on this machine with the files of tmp_path/shards."""
    handler = type("Handler", (_Ranged,), {"sent": 0})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path / "shards"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_single_samples_from_memory(good: Callable[..., list], tar: Callable[..., bytes]) -> None:
    data = tar([*good(1), *good(2)])
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/pool/00000.tar", data)
    rows = index_shard("memory://pool/00000.tar").rows
    for row, source in zip(rows, (good(1), good(2)), strict=True):
        assert read_sample(row) == source[0][1]
    assert read_images(rows[::-1]) == [good(2)[0][1], good(1)[0][1]]


def test_a_pool_over_http_is_indexed_in_place_and_read_by_range(
    served: str,
    shard: Callable[..., str],
    good: Callable[..., list],
    picture: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp")
    uid = b'{"uid": "5"}'
    big = [("big.png", picture(5, size=(300, 300))), ("big.json", uid), ("big.txt", b"big")]
    for number in range(2):
        shard([*good(number), *(big if number else [])], f"{number:05d}.tar")
    pool = build_pool(f"{served}/{{00000..00001}}.tar", tmp_path / "home")
    assert (pool.samples, pool.shards, pool.rejects) == (3, 2, 0) and not (pool.directory / "shards").exists()
    import pyarrow.parquet as pq

    samples = pq.ParquetFile(pool.samples_path).read()
    row = next(r for r in samples.to_pylist() if r["uid"].hex == "00" * 16)
    assert row["shard"] == "00000.tar" and resolve(row["shard"], pool.directory) == f"{served}/00000.tar"
    assert read_sample(row, pool.directory) == picture(0)
    assert sorted(read_images(samples, pool.directory)) == sorted([picture(0), picture(1), big[0][1]])
    assert [m["text"] for m in read_members([row], pool.directory)] == [b"caption 0"]


def test_relative_shards_lie_below_the_root(
    shard: Callable[..., str], good: Callable[..., list], tmp_path: Path
) -> None:
    shard(good(1))
    rows = index_shard(str(tmp_path / "shards/00000.tar"), "shards/00000.tar").rows
    assert read_sample(rows[0], tmp_path) == read_images(rows, tmp_path)[0] == good(1)[0][1]
    assert resolve("s3://b/x.tar", "/root") == "s3://b/x.tar" and resolve("/abs.tar", "/root") == "/abs.tar"


def test_a_shard_that_was_cut_since_is_named(shard: Callable[..., str], good: Callable[..., list]) -> None:
    path = shard([*good(1), *good(2)])
    rows = index_shard(path).rows
    Path(path).write_bytes(Path(path).read_bytes()[: rows[1]["image_offset"] + 5])
    assert read_sample(rows[0]) == good(1)[0][1]
    for read in (lambda: read_sample(rows[1]), lambda: read_images(rows), lambda: read_members(rows)):
        with pytest.raises(ShardChanged, match="replaced or cut"):
            read()
