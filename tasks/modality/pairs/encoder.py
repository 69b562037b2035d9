"""A CLIP that a run trained, as evaluation sees it: with the run's own vocabulary and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from mgd_core.autodiff.layout import Params
from mgd_core.models.clip import ClipObjective
from tasks.files.progress import say
from tasks.modality.pairs.vocabulary import Vocabulary
from tasks.pool.decoding import resized


@dataclass(frozen=True)
class RunEncoder:
    """A model that a run trained: its objective, parameters, and the tokens that it knows."""

    objective: ClipObjective
    params: Params
    vocabulary: Vocabulary
    size: int
    identity: str

    def pixels(self, image: Image.Image) -> Tensor:
        """uint8; normalised inside the objective."""
        return torch.from_numpy(resized(image, self.size).copy())

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Unit features (n, d)."""
        return self.objective.encode_images(self.params, pixels.to(self._device)).float().cpu()

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features (n, d); tokens that the run never saw have no embedding and are left out, which is told."""
        tokens, unknown = self.vocabulary.known_tokens(texts)
        if unknown:
            say(f"{unknown} of {len(texts)} texts have tokens that the run's pool and targets did not; left out there")
        return self.objective.encode_texts(self.params, tokens.to(self._device)).float().cpu()

    @property
    def _device(self) -> torch.device:
        return next(iter(self.params.values())).device
