"""open_clip's training transform told which box to cut and torchvision's rule told which numbers to draw: oracles of
`tasks.modality.pairs.augmentation`."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import RandomResizedCrop, transforms

from tasks.modality.pairs.augmentation import Box, Draws

Pixels = npt.NDArray[np.uint8]


def open_clip_crop(image: Image.Image, box: Box, size: int) -> Pixels:
    """Pixels (3, size, size) that open_clip's transform makes of a picture when it happens to draw ``box``; its own
    normalisation undone."""
    left, top, width, height = box
    transform = image_transform(size, is_train=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    with patch.object(RandomResizedCrop, "get_params", staticmethod(lambda *_: (top, left, height, width))):
        return (transform(image) * 255).round().to(torch.uint8).numpy()  # type: ignore[no-any-return]


def torchvision_box(draws: Draws, width: int, height: int, scale: Any, ratio: Any) -> Box:
    """The box of torchvision's own code when its generator gives ``draws``, in float64."""
    with patch.object(transforms, "torch", _Drawn(draws)):
        top, left, h, w = RandomResizedCrop.get_params(Image.new("L", (width, height)), scale, ratio)
    return left, top, w, h


class _Drawn:
    """torch, as `get_params` sees it: an attempt draws area and ratio, and, where these fit, top and left."""

    exp = staticmethod(torch.exp)

    def __init__(self, draws: Draws) -> None:
        self.draws, self.uniforms, self.places = draws, 0, 0

    def log(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()

    def tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def empty(self, _: int) -> _Drawn:
        return self

    def uniform_(self, low: float, high: float) -> torch.Tensor:
        attempt, which = divmod(self.uniforms, 2)
        self.uniforms += 1
        return self.tensor(float(low) + (float(high) - float(low)) * self.draws[attempt, which])

    def randint(self, low: int, high: int, size: tuple[int]) -> torch.Tensor:
        drawn = self.draws[self.uniforms // 2 - 1, 2 + self.places]
        self.places += 1
        return torch.tensor(int(low + (high - low) * drawn))
