"""Encoders: a trained model as evaluation sees it, images and texts in, unit features out.

Any checkpoint of open_clip, with its own tokenizer and transform; what a run trained is `modality.pairs.encoder`. Both
are deterministic on a device at a batch size; batches change features by rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgd_core.autodiff.objective import unit_rows
from mgd_core.errors import UserError
from tasks.files.artefacts import digest, file_digest
from tasks.pool.decoding import in_rgb

NUMBERS: list[Any] = [
    *((np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, type(np.dtype("f8")), type(np.dtype("f4"))),
]
"""What a number of numpy is unpickled by: open_clip's schedule leaves one in the optimizer's state, beside the weights,
as the learning rate of every checkpoint."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that does not hold the model it should."""


class Encoder(Protocol):
    """What `evaluation` needs of a model."""

    @property
    def identity(self) -> str:
        """Digest of everything that its features depend on."""

    def pixels(self, image: Image.Image) -> Tensor:
        """A picture as the model takes it, (3, S, S)."""

    def images(self, pixels: Tensor) -> Tensor:
        """Unit features (n, d) of stacked pixels."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (n, d) of sentences."""


@dataclass(frozen=True)
class OpenClipEncoder:
    """A model of open_clip with its tokenizer and transform."""

    model: torch.nn.Module
    tokenizer: Any
    transform: Any
    device: str
    identity: str = field(default="")

    def pixels(self, image: Image.Image) -> Tensor:
        """Normalised as the model wants it."""
        made: Tensor = self.transform(in_rgb(image))
        return made

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Unit features (n, d)."""
        return unit_rows(self.model.encode_image(pixels.to(self.device)).float()).cpu()  # type: ignore[operator]

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (n, d)."""
        return unit_rows(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)).float()).cpu()  # type: ignore[operator]


def open_clip_encoder(checkpoint: Path, model: str, device: str = "cpu") -> OpenClipEncoder:
    """The encoder of a state dict (.pt as open_clip's training writes it, or .safetensors) of a model: a name that
    open_clip knows, or the path of a model config (JSON). Pickled code in a checkpoint is not run.

    Raises CheckpointError when the file is not there, or not of this model.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    if not checkpoint.is_file():
        raise CheckpointError(
            f"{checkpoint}: no such file; --checkpoint is a state dict, say checkpoints/epoch_latest.pt"
        )
    name = model
    if model.endswith(".json"):
        if not Path(model).is_file():
            raise CheckpointError(f"{model}: no such file; --model is a model config or a name that open_clip knows")
        open_clip.add_model_config(model)
        name = Path(model).stem
    if open_clip.get_model_config(name) is None:
        raise CheckpointError(f"open_clip has no model {name!r}; name one of its own (ViT-B-32, ...) or a config file")
    try:
        with torch.serialization.safe_globals(NUMBERS):
            built = open_clip.create_model(name, pretrained=str(checkpoint), device=device, load_weights=True)
    except Exception as error:  # torch, safetensors and pickle each raise their own
        told = str(error).strip().split("\n")
        raise CheckpointError(f"{checkpoint}: not a checkpoint of {model}: {' '.join(told[:3])[:400]}") from error
    built.eval()
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(built)), is_train=False)
    config = digest(open_clip.get_model_config(name))
    return OpenClipEncoder(
        built, open_clip.get_tokenizer(name), transform, device, digest([file_digest(checkpoint), config, device])
    )
