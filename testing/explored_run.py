"""A run to look at: tables of several rounds, pictures in a shard, and captions that would do harm if they could."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.files.artefacts import publish_json
from tasks.tables.published import publish

RUN, SAMPLES, ROUNDS = "looked-1", 300, 3
HOSTILE = (
    "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">",
    "\u202eright to left \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "a NUL \0 inside",
    "long " * 100_000,
    "'; DROP TABLE samples; -- \" $x {y}",
)


def uid_at(i: int) -> str:
    """The uid of sample i, 32 hex digits; two in a row share their first half."""
    return f"{(i // 2) * 0x10000000000000:016x}{i:016x}"


def explored_home(home: Path) -> Path:
    """The home of a run whose first captions are HOSTILE; every tenth sample has no score, every seventh was not
    probed."""
    draw = np.random.default_rng(0)
    directory = home / "pools" / "pool-1"
    spans = _shard(directory / "shards" / "00000.tar")
    uids = [bytes.fromhex(uid_at(i)) for i in range(SAMPLES)]
    score = draw.normal(0.2, 0.05, SAMPLES)
    columns = {
        "uid": uids,
        "shard": ["shards/00000.tar"] * SAMPLES,
        "key": [f"{i:05d}" for i in range(SAMPLES)],
        "image_offset": [at for at, _ in spans],
        "image_size": [size for _, size in spans],
        **{f"{kind}_{part}": [0] * SAMPLES for kind in ("text", "json") for part in ("offset", "size")},
        "image_format": ["png"] * SAMPLES,
        "text": [*HOSTILE, *(f"caption {i % 40} of a {'red' if i % 3 else 'blue'} thing" for i in range(5, SAMPLES))],
        "width": [24] * SAMPLES,
        "height": [24] * SAMPLES,
        "score": [None if i % 10 == 9 else float(x) for i, x in enumerate(score)],
        "style": [["a", "b", None, "it's"][i % 4] for i in range(SAMPLES)],
        "truth_clean": [i % 2 == 0 for i in range(SAMPLES)],
    }
    publish(home, RUN, "samples", 0, pa.table(columns))
    for number in range(ROUNDS + 1):
        counts = np.ones(SAMPLES, int) if number == 0 else draw.integers(0, 4, SAMPLES)
        publish(home, RUN, "counts", number, pa.table({"uid": uids, "count": counts}))
        if number < ROUNDS:
            probed = np.arange(SAMPLES) % 7 != number
            g = np.where(probed, draw.normal(0, 0.01, SAMPLES), 0.0)
            part = {"uid": uids, "g": g, "probed": probed, "visits": probed.astype(np.int32)}
            publish(home, RUN, "metagradients", number, pa.table(part))
    publish(home, RUN, "choices", ROUNDS, pa.table({"rule": ["least held-out loss"], "value": [0.5]}))
    publish_json(home / "runs" / RUN / "run.json", {"pool_id": "pool-1"})
    return home


def _shard(path: Path) -> list[tuple[int, int]]:
    """A tar with a picture a sample; where each lies."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for i in range(SAMPLES):
            buffer = io.BytesIO()
            Image.new("RGB", (24, 24), (i * 37 % 256, i * 11 % 256, i % 256)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{i:05d}.png")
            info.size = len(buffer.getvalue())
            buffer.seek(0)
            tar.addfile(info, buffer)
    with tarfile.open(path) as tar:
        return [(one.offset_data, one.size) for one in tar]
