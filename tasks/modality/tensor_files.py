"""Tensors in safetensors files, published whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from tasks.files.artefacts import publish_bytes


def publish_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Publish named tensors, from whatever device, as the file `path`."""
    publish_bytes(path, save({name: x.cpu().contiguous() for name, x in tensors.items()}))
