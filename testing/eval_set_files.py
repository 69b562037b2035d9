"""Evaluation sets in clip_benchmark's WebDataset form, for tests: written as clip_benchmark_export_wds does."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Members = Mapping[str, bytes]


def png(pixels: np.ndarray) -> bytes:
    """Pixels (height, width[, 3]) uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array: object) -> bytes:
    """An array as a numpy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def write_set(
    directory: Path,
    samples: Sequence[Members],
    classes: Sequence[str] = (),
    templates: Sequence[str] = ("a photo of a {c}",),
    kind: str = "",
    per_shard: int = 5,
    folder: str = "test",
) -> Path:
    """A set of ``samples``, each its members by extension, keys s0000000, s0000001, ..."""
    (directory / folder).mkdir(parents=True, exist_ok=True)
    numbers = range(0, len(samples), per_shard)
    for shard, start in enumerate(numbers):
        with tarfile.open(directory / folder / f"{shard}.tar", "w") as tar:
            for i in range(start, min(start + per_shard, len(samples))):
                for extension, data in samples[i].items():
                    header = tarfile.TarInfo(f"s{i:07d}.{extension}")
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
    (directory / folder / "nshards.txt").write_text(f"{len(numbers)}\n")
    for name, lines in (("classnames", classes), ("zeroshot_classification_templates", templates if classes else ())):
        if lines:
            (directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    if kind:
        (directory / "dataset_type.txt").write_text(f"{kind}\n")
    return directory
