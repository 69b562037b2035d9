"""What the tests of pools, tables and subsets share: small pictures, tars with any defect, a small published
run."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tasks.tables.published import publish

Members = Iterable[tuple[str, bytes]]


def picture_bytes(number: int, size: tuple[int, int] = (5, 4), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def uid_of(number: int) -> str:
    return f"{number:02x}" * 16


def members_of(number: int, **record: Any) -> list[tuple[str, bytes]]:
    """A good sample: png, json (uid and `record`), txt."""
    text = json.dumps({"uid": uid_of(number), **record}).encode()
    key = f"{number:04d}"
    return [
        (f"{key}.png", picture_bytes(number)),
        (f"{key}.json", text),
        (f"{key}.txt", f"caption {number}".encode()),
    ]


def tar_of(members: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """picture(number, size=(width, height), kind="PNG"): an image file's bytes, another for each number."""
    return picture_bytes


@pytest.fixture
def uid() -> Callable[[int], str]:
    """uid(number): its uid as 32 hex digits; uids sort as their numbers."""
    return uid_of


@pytest.fixture
def good() -> Callable[..., list[tuple[str, bytes]]]:
    """good(number, **upstream): the members of a sample without fault."""
    return members_of


@pytest.fixture
def tar() -> Callable[..., bytes]:
    """tar(members): a tar's bytes."""
    return tar_of


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., str]:
    """shard(members, name="00000.tar"): the path of a tar with those members (or those bytes)."""

    def make(members: Members | bytes, name: str = "00000.tar") -> str:
        path = tmp_path / "shards" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(members if isinstance(members, bytes) else tar_of(members))
        return str(path)

    return make


@pytest.fixture
def rows() -> Callable[..., pa.Table]:
    """rows(table, n=4, **columns): n acceptable rows of a table, with columns replaced or added."""

    def make(table: str, n: int = 4, **columns: Any) -> pa.Table:
        uids = [bytes.fromhex(uid_of(i)) for i in range(n)]
        base: Mapping[str, Any] = {
            "samples": {
                "uid": uids,
                "shard": ["shards/00000.tar"] * n,
                "key": [str(i) for i in range(n)],
                **{f"{m}_{p}": list(range(n)) for m in ("image", "text", "json") for p in ("offset", "size")},
                "image_format": ["png"] * n,
                "text": [f"caption {i}" for i in range(n)],
                "width": [5] * n,
                "height": [4] * n,
            },
            "metagradients": {"uid": uids, "g": np.arange(n) - 1.5, "probed": [True] * n, "visits": [1] * n},
            "counts": {"uid": uids, "count": [1] * n},
            "timings": {"phase": [f"phase {i}" for i in range(n)], "seconds": np.arange(n) + 0.5},
            "choices": {"rule": ["least held-out loss"], "value": [0.5]},
        }
        return pa.table({**base[table], **columns})

    return make


@pytest.fixture
def small_run(tmp_path: Path, rows: Callable[..., pa.Table]) -> Path:
    """A home with the run `small-1`: four samples, three rounds, round 1 chosen; samples 0 and 1 are clean, 2
    and 3 swapped."""
    home = tmp_path / "home"
    extra = {"style": ["a", "a", "b", "b"], "truth_clean": [True, True, False, False]}
    publish(home, "small-1", "samples", 0, rows("samples", **extra))
    for number, (g, counts) in enumerate(
        [
            ([-2.0, 1.0, 0.5, 3.0], [1, 1, 1, 1]),
            ([-1.0, -2.0, 2.0, 0.0], [2, 0, 1, 0]),
            ([0, 0, 0, 0], [3, 1, 0, 0]),
        ]
    ):
        publish(home, "small-1", "counts", number, rows("counts", count=counts))
        if number < 2:
            publish(home, "small-1", "metagradients", number, rows("metagradients", g=np.array(g)))
            publish(home, "small-1", "timings", number, rows("timings"))
    publish(home, "small-1", "choices", 1, rows("choices"))
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 1 MiB: a file system of its own where the user may mount one, else a limit on
    file sizes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode == 0
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield disk
    if mounted:
        subprocess.run(["umount", "-l", disk], check=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
