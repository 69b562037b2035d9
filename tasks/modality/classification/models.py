"""Classifiers of pictures, made from a catalog."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mgd_core.models.resnets import ResNet9, ResNetOptions
from mgd_core.models.transformers import SmallViT, TransformerOptions
from mgd_core.training.learner import check_rowwise
from tasks.catalog.files import CatalogError
from tasks.catalog.study_options import StudyModelOptions


def build_model(options: StudyModelOptions, shape: torch.Size, classes: int, seed: int) -> nn.Module:
    """A classifier of pictures of ``shape`` (channels, side, side), its weights drawn from ``seed`` alone.

    Raises:
        CatalogError: the model does not fit the pictures.
    """
    channels, side, _ = shape
    if options.kind == "resnet9" and side % 8:
        raise CatalogError(
            f"model.kind 'resnet9' halves pictures three times; their {side} pixels are no multiple of 8"
        )
    if options.kind == "vit" and (side % options.patch or options.width % options.heads):
        raise CatalogError(
            f"model.kind 'vit': {side} pixels need a patch that divides them (patch = {options.patch}), and width "
            f"{options.width} a multiple of its {options.heads} heads"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module
        if options.kind == "mlp":
            net = _Mlp(options, channels * side * side, classes)
        elif options.kind == "resnet9":
            how = ResNetOptions(
                classes, channels, options.width, norm=options.norm, pool=options.pool, logit_scale=options.logit_scale
            )
            net = ResNet9(how)
        else:
            blocks = TransformerOptions(
                options.width, options.heads, options.layers, qk_norm=options.qk_norm, logit_scale=options.logit_scale
            )
            net = SmallViT(blocks, side, options.patch, channels, classes)
    check_rowwise(net)
    return net


class _Mlp(nn.Module):
    """Logits of pictures, each shifted to about zero mean."""

    def __init__(self, options: StudyModelOptions, inputs: int, classes: int) -> None:
        super().__init__()
        widths, layers = [inputs, *(options.width for _ in range(options.layers))], list[nn.Module]()
        for a, b in pairwise(widths):
            norm = [nn.LayerNorm(b)] if options.norm != "none" else []
            layers += [nn.Linear(a, b), *norm, nn.GELU()]
        self.layers, self.scale = nn.Sequential(*layers, nn.Linear(options.width, classes)), options.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.flatten(1))
        return self.scale * logits
