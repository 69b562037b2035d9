"""What a learner refuses, and models and layouts."""

import pytest
import torch
from open_clip.transformer import PatchDropout
from timm.layers import BatchNormAct2d, DropPath
from torch import nn

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.models.clip import build_clip, initial_parameters
from mgd_core.training.learner import check_rowwise
from testing import problems
from testing.samples import small


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.SyncBatchNorm(4), BatchNormAct2d(4)])
def test_batch_norm_is_refused_with_an_alternative(layer: nn.Module):
    with pytest.raises(ValueError, match=r"layer '1' is a .*BatchNorm.*LayerNorm or GroupNorm instead"):
        check_rowwise(nn.Sequential(nn.Linear(4, 4), layer))


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), DropPath(0.1), PatchDropout(0.1), nn.MultiheadAttention(4, 2, 0.1)])
def test_layers_that_drop_at_random_are_refused(layer: nn.Module):
    with pytest.raises(ValueError, match=r"layer '0'.*at random \(p=0.1\).*Set p to 0"):
        check_rowwise(nn.Sequential(layer))


def test_instance_norm_is_refused():
    with pytest.raises(ValueError, match="GroupNorm with one channel a group"):
        check_rowwise(nn.Sequential(nn.InstanceNorm2d(4)))


def test_layers_that_keep_rows_apart_pass():
    check_rowwise(nn.Sequential(nn.Dropout(0.0), DropPath(0.0), nn.LayerNorm(4), nn.GroupNorm(2, 4)))


def test_a_clip_with_batch_norm_is_refused():
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    with pytest.raises(ValueError, match=r"layer 'visual.bn1' is a BatchNorm2d"):
        build_clip(8, resnet, problems.TEXT, seed=0)


def test_weights_come_from_the_seed_alone():
    def weights(seed: int) -> torch.Tensor:
        model = build_clip(8, problems.VIT, problems.TEXT, seed)
        return initial_parameters(model, ParameterLayout.of(model))

    torch.manual_seed(1)
    first = weights(0)
    ambient = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), ambient), "building a model takes nothing from the ambient generator"
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)


def test_layout_is_a_bijection():
    problem = small(problems.clip)
    layout, theta = problem.learner.layout, problem.initial.theta
    params = layout.unflatten(theta)
    assert torch.equal(layout.flatten(params), theta) and layout.length == len(theta)
    for name, start, stop in zip(layout.names, layout.offsets, layout.offsets[1:], strict=False):
        assert layout.name_at(start) == layout.name_at(stop - 1) == name
        assert torch.equal(params[name].reshape(-1), theta[start:stop])
    with pytest.raises(IndexError, match="outside"):
        layout.name_at(layout.length)
    masked = layout.unflatten(layout.matrix_mask(theta))
    assert masked["token_embedding.weight"].all() and not masked["ln_final.bias"].any()
    assert not masked["logit_scale"].any()


def test_a_step_is_a_function_of_its_arguments():
    problem = small()
    before = problem.initial.theta.clone()
    (first, loss), (again, same) = (problem.learner.step(problem.initial, 3) for _ in range(2))
    assert torch.equal(problem.initial.theta, before) and torch.equal(loss, same)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
