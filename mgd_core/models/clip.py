"""open_clip models as an objective of the engine: weighted InfoNCE with the model's learned scale.

The model is built by open_clip from a JSON config and called functionally on views of the flat parameter vector.
Images enter as uint8, cropped already if they are at all, and are normalised inside ``encode``: a step must be a
function of its number, so whoever makes its batch draws the crops from that.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, Objective, Rows, info_nce, info_nce_joining, unit_rows
from mgd_core.errors import UserError
from mgd_core.training.learner import check_rowwise

CLIP_MEAN, CLIP_STD = 0.45, 0.27  # one grey level for all channels: OpenAI's per-channel values to two digits

MAX_SCALE = 100.0  # of CLIP's training (arXiv 2103.00020, section 2.5)


class ClipError(UserError, ValueError):
    """A model config of which no CLIP can be built, or none that can be trained here; says why."""


def build_clip(
    embed_dim: int, vision: dict[str, Any], text: dict[str, Any], seed: int, custom_text: bool = False, **options: Any
) -> nn.Module:
    """An open_clip ``CLIP`` with weights drawn from ``seed`` alone; ambient RNG is restored.

    ``vision`` and ``text`` are the ``vision_cfg`` and ``text_cfg`` of an open_clip model config; ``custom_text``: a
    ``CustomTextCLIP``, whose text tower is a module of its own.

    Raises:
        ClipError: open_clip cannot build it, or a layer couples rows or draws at random (batch norm, dropout).
    """
    from open_clip.model import CLIP, CustomTextCLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = (CustomTextCLIP if custom_text else CLIP)(embed_dim, dict(vision), dict(text), **options)
        except Exception as error:  # open_clip, timm and torch each raise their own
            told = " ".join(str(error).split())[:300] or traceback.extract_tb(error.__traceback__)[-1].line
            raise ClipError(f"open_clip cannot build the model ({type(error).__name__}: {told})") from error
    model.train()  # no layer behaves differently, but eval mode takes a fused attention path without derivatives
    try:
        check_rowwise(model)
    except ValueError as error:
        raise ClipError(str(error)) from None
    return model


class ClipObjective(Objective):
    """InfoNCE of (image, caption) pairs. Rows: images (n, 3, H, W) uint8 and tokens (n, L) int64."""

    def __init__(self, model: nn.Module, max_scale: float = MAX_SCALE) -> None:
        self.model = model
        self.max_scale = max_scale

    def encode(self, params: Params, rows: Rows) -> Features:
        """Unit image and text features, each (n, d)."""
        images, tokens = rows
        return self.encode_images(params, images), self.encode_texts(params, tokens)

    def encode_images(self, params: Params, images: Tensor) -> Tensor:
        """Unit features (n, d) of uint8 images (n, 3, H, W)."""
        return unit_rows(self._call(params, normalised(images, next(iter(params.values())).dtype), None)[0])

    def encode_texts(self, params: Params, tokens: Tensor) -> Tensor:
        """Unit features (n, d) of token rows (n, L)."""
        return unit_rows(self._call(params, None, tokens)[1])

    def scale(self, params: Params) -> Tensor:
        """Learned inverse temperature, capped as in CLIP's training."""
        return params["logit_scale"].exp().clamp(max=self.max_scale)

    def losses(self, params: Params, features: Features) -> Tensor:
        """Symmetric InfoNCE of each pair, (n,)."""
        image, text = features
        return info_nce(image, text, self.scale(params))

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """InfoNCE (n,) of each candidate as the one more pair of the batch ``reference``."""
        (image, text), (image_others, text_others) = candidates, reference
        return info_nce_joining(image, text, (image_others, text_others), self.scale(params), others)

    def _call(self, params: Params, images: Tensor | None, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        call = {"image": images} if tokens is None else {"text": tokens}
        out = functional_call(self.model, dict(params), kwargs=call)
        return (out["image_features"], out["text_features"]) if isinstance(out, dict) else (out[0], out[1])


def normalised(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels of 0 to 255 to zero-mean, unit-scale ``dtype``; of floating point where they are a metaparameter."""
    if images.is_floating_point():  # not in place: they are the caller's
        return (images.to(dtype) - 255 * CLIP_MEAN) / (255 * CLIP_STD)
    return images.to(dtype).div_(255 * CLIP_STD).sub_(CLIP_MEAN / CLIP_STD)


def initial_parameters(model: nn.Module, layout: ParameterLayout, dtype: torch.dtype = torch.float32) -> Tensor:
    """The model's own initial weights as a flat vector (P,)."""
    return layout.flatten({n: p.detach().to(dtype) for n, p in model.named_parameters()})
