"""Every filter of pairs against the formula of its paper, computed plainly on the whole of a small pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import target_at
from mgd_core.engine.replay import train
from mgd_core.models.clip import ClipObjective
from mgd_core.models.zeroshot import ZeroShotTask
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State
from tasks.modality.pairs.baselines import BASELINES
from tasks.modality.pairs.filters import negclip, target_match
from tasks.modality.pairs.filters.influence import curved, gauss_newton, influences, solved
from tasks.modality.pairs.filters.intersection import worse_places
from tasks.modality.pairs.filters.loss_difference import loss_differences, tuned
from tasks.modality.pairs.filters.negclip import batch_losses, negclip_losses, random_batches
from tasks.modality.pairs.filters.one_step import one_step_effects, points, step_point
from tasks.modality.pairs.filters.target_match import domain_matches, norm_sim, norm_sims
from tasks.modality.pairs.modality import PairRecipe
from tasks.modality.recipe import objective_of
from tasks.modality.registry import open_recipe
from testing.small_catalog import begun, small_catalog


class Asked(NamedTuple):
    """A recipe, and its model asked plainly: unit features of the pool, and the target's."""

    recipe: PairRecipe
    learner: Learner
    theta: Tensor
    images: Tensor
    texts: Tensor
    target: ZeroShotTask

    @property
    def params(self) -> dict[str, Tensor]:
        return dict(self.learner.layout.unflatten(self.theta))

    @property
    def objective(self) -> ClipObjective:
        return objective_of(self.learner, ClipObjective)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    place = tmp_path_factory.mktemp("filters")
    with open_recipe(begun(small_catalog(place), place / "home")) as recipe:
        assert isinstance(recipe, PairRecipe)
        learner, state = recipe.learner(seed=3)
        state, _ = train(learner, state)
        target = recipe.targets(learner).target
        assert isinstance(target, ZeroShotTask)
        rows = recipe.rows(np.arange(len(recipe)))
        with torch.no_grad():
            objective, params = objective_of(learner, ClipObjective), learner.layout.unflatten(state.theta)
            images, texts = objective.encode(params, rows)
        yield Asked(recipe, learner, state.theta, images, texts, target)


def test_negclip_loss_is_the_cosine_less_both_log_sum_exps_over_the_batch(asked: Asked) -> None:
    scale = float(asked.params["logit_scale"].exp())
    logits = scale * (asked.images @ asked.texts.T).double()
    neg_clip = logits.diagonal() - 0.5 * (logits.exp().sum(1).log() + logits.exp().sum(0).log())
    np.testing.assert_allclose(negclip_losses(asked.recipe, asked.theta), -neg_clip.numpy(), atol=1e-4)


def test_negclip_loss_is_a_mean_over_batches_that_hold_every_pair_equally_often(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negclip, "BATCH", 50)
    monkeypatch.setattr(negclip, "AT_ONCE", 700)  # some rows of a batch at a time
    n, scale = len(asked.recipe), float(asked.params["logit_scale"].exp())
    batches = list(random_batches(n, 4, negclip.BATCHES))
    assert (np.bincount(np.concatenate(batches), minlength=n) == negclip.BATCHES).all()
    wanted = np.zeros(n)
    for ids in batches:
        logits = scale * (asked.images[ids] @ asked.texts[ids].T).double()
        own = 0.5 * (torch.logsumexp(logits, 0) + torch.logsumexp(logits, 1)) - logits.diagonal()
        wanted[ids] += own.numpy() / negclip.BATCHES
    np.testing.assert_allclose(negclip_losses(asked.recipe, asked.theta), wanted, atol=1e-4)
    order = torch.from_numpy(np.random.default_rng(0).permutation(40))
    images, texts = asked.images[:40], asked.texts[:40]
    turned = batch_losses(images[order], texts[order], scale)
    torch.testing.assert_close(turned, batch_losses(images, texts, scale)[order], atol=1e-5, rtol=0)


def test_norm_sim_is_the_norm_of_the_cosines_with_the_targets_pictures(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_match, "AT_ONCE", 1000)  # some pictures of the pool at a time
    wanted = asked.objective.encode_images(asked.params, asked.target.images).detach()
    cosines = (asked.images @ wanted.T).double().numpy()
    np.testing.assert_allclose(norm_sims(asked.recipe, asked.theta), -cosines.max(1), atol=1e-5)
    two = norm_sim(asked.images.numpy(), wanted, p=2)
    np.testing.assert_allclose(two, np.sqrt((cosines**2).sum(1)), rtol=1e-4)


def test_the_first_by_both_are_in_the_same_best_share_of_each(asked: Asked) -> None:
    places = worse_places(asked.recipe, asked.theta)
    orders = [np.argsort(one(asked.recipe, asked.theta), kind="stable") for one in (negclip_losses, norm_sims)]
    for share in (1, 60, 120, 239):
        assert set(np.flatnonzero(places < share)) == set(orders[0][:share]) & set(orders[1][:share])


def test_domain_match_is_the_cosine_of_both_as_one_vector_with_the_targets_mean(asked: Asked) -> None:
    target = asked.target
    with torch.no_grad():
        images = asked.objective.encode_images(asked.params, target.images)
        classes = target.class_features(asked.params)
    both = [np.concatenate([x, classes[y]]) for x, y in zip(images.numpy(), target.labels.tolist(), strict=True)]
    mean = np.mean(np.float64(both), 0)
    own = torch.cat([asked.images, asked.texts], 1).double().numpy()
    cosines = own @ mean / np.linalg.norm(own, axis=1) / np.linalg.norm(mean)
    np.testing.assert_allclose(domain_matches(asked.recipe, asked.theta), -cosines, atol=1e-5)


def test_color_is_the_loss_of_the_model_tuned_on_the_target_less_that_of_the_prior(asked: Asked) -> None:
    recipe, learner, heldout = asked.recipe, asked.learner, asked.recipe.targets(asked.learner).heldout
    theta = tuned(recipe, asked.theta)
    assert not torch.equal(theta, asked.theta)
    # The recipe has 8 steps of which 2 warm up, so 2 of the tuning: the better of its two states, made by hand.
    rates, state, states = (
        recipe.with_sections(learner=recipe.catalog.learner.model_copy(update={"steps": 2, "warmup": 0})).rates(),
        learner.optimizer.init(asked.theta),
        [],
    )
    for t in range(2):
        _, g = target_at(learner.layout, state.theta, lambda p: asked.target._loss(p, asked.target.cosines(p))[0])
        state = learner.optimizer.update(state, g, t, rates[t].float())
        states.append(state.theta)
    best = min(states, key=lambda one: heldout.score(one).loss)
    torch.testing.assert_close(theta, best)
    rows, losses = recipe.rows(np.arange(len(recipe))), []
    for one in (best, asked.theta):
        params = learner.layout.unflatten(one)
        with torch.no_grad():
            losses.append(asked.objective.losses(params, asked.objective.encode(params, rows)).double().numpy())
    np.testing.assert_allclose(loss_differences(recipe, asked.theta), losses[0] - losses[1], atol=2e-5)


def test_the_gradient_filter_is_the_slope_of_the_target_by_a_pair_that_joins_the_step(asked: Asked) -> None:
    """The step's batch with a pair of weight eps beside it, in plain autograd, and the move of Adam's step by central
    differences in float64."""
    recipe = asked.recipe
    learner, initial = recipe.learner(seed=recipe.catalog.descent.seed)
    target, state = recipe.targets(learner).target, initial
    assert points(8) == [1, 3, 5, 7] and points(1) == [0]
    some, wanted = np.array([0, 7, 100]), np.zeros(3)
    for t in range(8):
        after, _ = learner.step(state, t)
        if t in points(8):
            _, g = learner.gradient(state, t)
            _, slope = target.target(after.theta)
            for i, one in enumerate(some):
                own = _joining(asked, learner, state.theta, t, int(one))
                wanted[i] += float(slope.double() @ _moved(learner, state, t, g, own))
        state = after
    found = one_step_effects(recipe, None)
    np.testing.assert_allclose(found[some], wanted, rtol=2e-3, atol=1e-6)
    point = step_point(learner, initial, 0, target)
    assert point.step == 0 and torch.equal(point.theta, initial.theta)


def _joining(asked: Asked, learner: Learner, theta: Tensor, t: int, one: int) -> Tensor:
    """Gradient (P,) of the loss that a pair has among the others of a step's batch."""
    batch, rows = learner.batches(t), asked.recipe.rows(np.array([one]))
    kept = batch.ids != one
    objective = objective_of(learner, ClipObjective)
    joined = tuple(torch.cat([own, others[kept]]) for own, others in zip(rows, batch.rows, strict=True))
    own = theta.clone().requires_grad_(True)
    params = learner.layout.unflatten(own)
    return torch.autograd.grad(objective.losses(params, objective.encode(params, joined))[0], own)[0]


def _moved(learner: Learner, state: State, t: int, g: Tensor, own: Tensor, eps: float = 1e-5) -> Tensor:
    """Move (P,) of the step by the weight of a pair, float64."""
    state, g, own = State(state.theta.double(), tuple(x.double() for x in state.moments)), g.double(), own.double()
    optimizer, lr = learner.optimizer_at(t), learner.lr(t, state.theta)
    more, less = (optimizer.update(state, g + eps * sign * own, t, lr).theta for sign in (1, -1))
    return (more - less) / (2 * eps)


def test_the_curvature_of_the_loss_by_similarities_is_its_hessian() -> None:
    torch.manual_seed(0)
    logits, along = torch.randn(2, 5, 5, dtype=torch.float64)

    def loss(flat: Tensor) -> Tensor:
        x = flat.view(5, 5)
        return (0.5 * (torch.logsumexp(x, 1) + torch.logsumexp(x, 0)) - x.diagonal()).mean()

    hessian = torch.autograd.functional.hessian(loss, logits.flatten())
    torch.testing.assert_close(curved(logits, along).flatten(), hessian @ along.flatten())
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12


def test_a_gauss_newton_product_is_that_of_the_jacobian_row_by_row(asked: Asked) -> None:
    learner, theta = asked.learner, asked.theta
    whole = learner.batches(7)
    batch = whole._replace(rows=tuple(x[:4] for x in whole.rows), ids=whole.ids[:4], weights=whole.weights[:4])
    own = theta.clone().requires_grad_(True)
    params = learner.layout.unflatten(own)
    image, text = asked.objective.encode(params, batch.rows)
    logits = (asked.objective.scale(params) * (image @ text.T)).flatten()
    jacobian = torch.stack([torch.autograd.grad(one, own, retain_graph=True)[0] for one in logits])
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(1))
    wanted = jacobian.T @ curved(logits.detach().view(4, 4), (jacobian @ v).view(4, 4)).flatten()
    torch.testing.assert_close(gauss_newton(learner, theta, [batch], v), wanted, rtol=1e-3, atol=1e-6)


def test_the_system_is_solved(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.modality.pairs.filters.influence.DIRECTIONS", 400)
    torch.manual_seed(0)
    half = torch.randn(3, 30, dtype=torch.float64)
    matrix, wanted = half.T @ half, torch.randn(30, dtype=torch.float64)
    shift = 0.1 * matrix.diagonal().mean()
    exact = torch.linalg.solve(matrix + shift * torch.eye(30, dtype=torch.float64), wanted)
    torch.testing.assert_close(solved(lambda v: matrix @ v, wanted), exact, rtol=0.1, atol=0.1)
    tight = solved(lambda v: matrix @ v + shift * v, wanted, damping=0.0)
    torch.testing.assert_close(tight, exact, rtol=1e-2, atol=1e-3)


def test_an_influence_is_the_solution_times_the_pairs_gradient(asked: Asked) -> None:
    recipe = asked.recipe
    learner, _ = recipe.learner(seed=recipe.catalog.descent.seed)
    found = influences(recipe, asked.theta)
    _, slope = recipe.targets(learner).target.target(asked.theta)
    batches = [learner.batches(t) for t in (6, 7)]
    x = solved(lambda v: gauss_newton(learner, asked.theta, batches, v), slope)
    wanted = [-float(x @ _joining(asked, learner, asked.theta, 7, one)) for one in (0, 7, 100)]
    np.testing.assert_allclose(found[[0, 7, 100]], wanted, rtol=1e-2, atol=1e-6)


def test_scores_do_not_depend_on_how_the_pool_is_cut_into_shards(asked: Asked, tmp_path: Path) -> None:
    with open_recipe(begun(small_catalog(tmp_path, ("shard_size = 100", "shard_size = 60")), tmp_path)) as other:
        assert isinstance(other, PairRecipe)
        assert len(np.unique(other.shards)) > len(np.unique(asked.recipe.shards))
        np.testing.assert_array_equal(other.uids, asked.recipe.uids)
        for scores in (negclip_losses, norm_sims, domain_matches):
            np.testing.assert_array_equal(scores(other, asked.theta), scores(asked.recipe, asked.theta))


def test_every_filter_gives_finite_scores_that_differ(asked: Asked) -> None:
    for name, one in BASELINES.items():
        scores = one.scores(asked.recipe, asked.theta if one.by_model else None)
        assert scores.shape == (len(asked.recipe),) and np.isfinite(scores).all() and np.ptp(scores) > 0, name
