"""Crops: open_clip's pixels and torchvision's boxes, the same ones whoever reads; exact metagradients through them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import replay
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.training.learner import Batch
from tasks.catalog.catalogs import BaseCatalog, CatalogError, load_catalog
from tasks.catalog.pair_catalog import AugmentationOptions, Catalog
from tasks.catalog.recipe_options import RuntimeOptions
from tasks.curation import estimate, rounds, step_costs
from tasks.curation.begin import identity
from tasks.modality.pairs import modality
from tasks.modality.pairs.augmentation import crop_box, cropped, crops_of, probe_draws, training_draws
from tasks.modality.pairs.modality import PairRecipe
from tasks.modality.pairs.pairs import load_pairs
from tasks.modality.registry import open_recipe
from tasks.pool.decoding import decode
from tasks.tables.published import read
from testing.children import CHILDREN
from testing.crops import (
    begun,
    cropped_problem,
    cut_by_open_clip,
    open_clip_crop,
    open_clip_crops,
    picture_file,
    torchvision_box,
)
from testing.oracles import Joining, NaiveRun, Problem, central_difference, relative_error
from testing.small_catalog import curate_plainly, published, small_catalog

CROPS = AugmentationOptions()
ON = ("[descent]", "[augmentation]\nscale = [0.3, 0.9]\n[descent]")
SIZES = ((256, 256), (320, 240), (240, 320), (500, 375), (1000, 300), (90, 700), (224, 224), (31, 40), (1, 1), (1, 9))


def batches(recipe: PairRecipe, steps: Any, round: int = 0) -> list[Batch]:
    """Batches of a training, asked for in this order."""
    ask: Any = recipe.learner(np.ones(240, np.int64), 5, round)[0].batches
    ask.expect(list(steps))
    return [ask(t) for t in steps]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_open_clips(size: tuple[int, int]) -> None:
    """Of its training transform given the same box, whatever the file is."""
    forms = ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGB")
    for seed, (form, mode) in enumerate(forms):
        data, draws = picture_file(*size, seed, form, mode), training_draws(3, 1, 2, seed)
        (image,) = [decode(data).image]
        for i, pixels in enumerate(crops_of([data], draws, 48, CROPS)):
            box = crop_box(draws[i], *size, CROPS)
            assert np.array_equal(pixels, open_clip_crop(image, box, 48))


def test_boxes_are_torchvisions_for_the_same_numbers() -> None:
    wide = AugmentationOptions(scale=(0.08, 1.0), ratio=(0.2, 6.0))
    fallbacks = 0
    for options in (CROPS, wide, AugmentationOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0))):
        for number, (width, height) in enumerate(SIZES):
            for draws in training_draws(60, number, 0, 0):
                expected = torchvision_box(draws, width, height, options.scale, options.ratio)
                assert crop_box(draws, width, height, options) == expected
                left, top, w, h = expected
                assert 0 <= left <= width - w and 0 <= top <= height - h and w > 0 < h
                fallbacks += (left, top) == ((width - w) // 2, (height - h) // 2)
    assert fallbacks > 100


@pytest.mark.parametrize("size", [(256, 256), (320, 240), (640, 400)], ids=str)
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    """Kolmogorov and Smirnov's two-sample distance of each marginal below its 0.1 % point; as many centre crops."""
    n, image = 2000, Image.new("L", size)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        theirs = np.array([RandomResizedCrop.get_params(image, CROPS.scale, CROPS.ratio) for _ in range(n)], float)
    ours = np.array([crop_box(draws, *size, CROPS) for draws in training_draws(n, 3, 1, 4)], float)
    ours = ours[:, [1, 0, 3, 2]]
    for mine, other in zip(_marginals(ours, size), _marginals(theirs, size), strict=True):
        at = np.sort(np.concatenate([mine, other]))
        apart = [np.searchsorted(np.sort(x), at, side="right") / n for x in (mine, other)]
        assert np.abs(apart[0] - apart[1]).max() < 1.95 * np.sqrt(2 / n)


def _marginals(boxes: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Area, ratio, top and left of boxes (top, left, height, width), and the sum that couples them."""
    top, left, h, w = boxes.T
    yield h * w
    yield w / h
    yield top
    yield left
    yield top / size[1] + left / size[0] + h / size[1]


def test_draws_belong_to_seed_round_step_and_position() -> None:
    draws = training_draws(9, 1, 2, 3)
    assert np.array_equal(draws[:4], training_draws(4, 1, 2, 3)), "whatever the batch holds"
    others = [training_draws(9, *key) for key in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2))]
    assert len({one.tobytes() for one in (draws, *others)}) == 5
    uids = np.array([b"a" * 16, b"b" * 16, b"c" * 15], "S16")
    mine = probe_draws(uids, 3, 1, 2, 3)
    assert mine.shape == (9, 10, 4) and np.array_equal(mine[6:], probe_draws(uids[2:], 3, 1, 2, 3))
    assert np.array_equal(mine[3:5], probe_draws(uids[1:2], 2, 1, 2, 3)), "more crops begin with the fewer"
    assert not np.array_equal(mine, probe_draws(uids, 3, 1, 2, 4)) and probe_draws(uids[:0], 3, 1, 2, 3).shape[0] == 0
    state = np.random.get_state()[1].tobytes(), torch.get_rng_state()
    training_draws(5, 0, 0, 0)
    assert np.random.get_state()[1].tobytes() == state[0] and torch.equal(torch.get_rng_state(), state[1])


def test_a_batch_is_the_same_whoever_reads_it(tmp_path: Path) -> None:
    """Any readers, cache, order, replays, windowed reading and disk; and it is what open_clip would show."""
    with open_recipe(begun(tmp_path, ON)) as recipe:
        assert isinstance(recipe, PairRecipe)
        first = batches(recipe, range(8), round=1)
        for t, batch in enumerate(first):
            expected = open_clip_crops(recipe, batch.ids.numpy(), training_draws(32, 5, 1, t))
            assert torch.equal(batch.rows[0], expected)
        assert not torch.equal(first[0].rows[0], batches(recipe, [0], round=2)[0].rows[0])
        replays = [7, 3, 4, 3, 7, 0, 1, 0, 2, 6, 5]
        streamed = dataclasses.replace(recipe, pairs=load_pairs(recipe.pool, 32, decoded_disk=0))
        many = recipe.catalog.runtime.model_copy(update={"readers": 5, "batch_cache": 1 << 20})
        for other in (recipe.with_sections(runtime=many), streamed):
            for t, batch in zip(replays, batches(other, replays, round=1), strict=True):
                assert all(map(torch.equal, batch.rows, first[t].rows))
        window = recipe.catalog.learner.model_copy(update={"window": 100})
        for other in (recipe.with_sections(learner=window), streamed.with_sections(learner=window, runtime=many)):
            for t, batch in enumerate(batches(other, range(8))):
                expected = open_clip_crops(recipe, batch.ids.numpy(), training_draws(32, 5, 0, t))
                assert torch.equal(batch.rows[0], expected)


def test_without_the_section_a_run_is_known_as_before(tmp_path: Path) -> None:
    """Its catalog says no more than it did; with the section it is another run, and with other crops yet another."""
    small_catalog(tmp_path)
    path, said = tmp_path / "small.toml", (tmp_path / "small.toml").read_text()
    plain = load_catalog(path)
    assert "augmentation" not in plain.model_dump() | plain.model_dump(mode="json", exclude={"pool"})
    known = [identity(plain, tmp_path)]
    assert "augmentation" not in known[0]
    for section in ("", "scale = [0.5, 1.0]", "ratio = [1.0, 1.0]", "probe_crops = 2"):
        path.write_text(f"{said}[augmentation]\n{section}\n")
        known.append(identity(load_catalog(path), tmp_path))
        assert {**known[-1], "augmentation": None} == {**known[0], "augmentation": None}
    assert all(known.count(one) == 1 for one in known)
    path.write_text(f"{said}[augmentation]\nscale = [0.9, 1]\nprobe_crops = 1\n")
    assert identity(load_catalog(path), tmp_path) == known[1], "open_clip's own, said or not"
    assert checked_again(load_catalog(path)) == load_catalog(path)


def checked_again(catalog: BaseCatalog) -> BaseCatalog:
    """A catalog read from what its run's record says."""
    return Catalog.model_validate_json(catalog.model_dump_json())


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL in the reverse sweep and in a probe, another plan's replays, other readers and shards on the way."""
    on = ("[descent]", "[augmentation]\nscale = [0.3, 0.9]\nprobe_crops = 2\n[descent]")
    few = ('subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]', 'subsets = ["mgd"]')
    one = (on, few, ("rounds = 2", "rounds = 1"))
    expected = published(curate_plainly(small_catalog(tmp_path / "whole", *one), tmp_path / "whole" / "home"))
    slow = ("rounds = 1", "checkpoint_steps = 1\nrounds = 1"), ("threads = 1", 'threads = 1\nbatch_cache = "1MB"')
    catalog, home = small_catalog(tmp_path / "killed", *one, *slow), tmp_path / "killed" / "home"
    for milestone in ("work/round-000/states/reverse.safetensors", "work/round-000/probe-shards-00001-tar-*.json"):
        process = CHILDREN.Process(target=curate_plainly, args=(catalog, home))
        process.start()
        deadline = time.monotonic() + 120
        while not list(home.glob(f"runs/*/{milestone}")):
            assert process.is_alive() and time.monotonic() < deadline, f"ended before {milestone}"
            time.sleep(0.01)
        process.kill()
        process.join()
    assert published(curate_plainly(catalog, home)) == expected
    plan = ("rounds = 1", 'plan = "segments"\nslots = 1\ndisk_states = 2\nrounds = 1')
    other = curate_plainly(small_catalog(tmp_path / "plan", *one, plan), tmp_path / "plan" / "home")
    g = [read(d, next(d.glob("runs/*")).name, "metagradients", 0) for d in (home, other.parents[1])]
    assert g[0].equals(g[1])


@pytest.fixture
def exact(tmp_path: Path) -> Iterator[tuple[PairRecipe, Problem]]:
    on = ("[descent]", "[augmentation]\nscale = [0.3, 0.9]\nprobe_crops = 2\n[descent]")
    with open_recipe(begun(tmp_path, on, ("batch = 32", "batch = 6\neps_root = 1e-4"))) as recipe:
        assert isinstance(recipe, PairRecipe)
        yield recipe, cropped_problem(recipe)


def test_metagradients_are_those_of_naive_autograd_and_of_differences(exact: tuple[PairRecipe, Problem]) -> None:
    """Float64; the oracle's batches are cropped by open_clip's transform, step by step, before it begins."""
    recipe, problem = exact
    start, steps = 3, problem.learner.steps
    naive = NaiveRun(cut_by_open_clip(recipe, problem), start)
    expected = naive.gradient().example
    found = [
        replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, 240, [4]).example
        for plan in (keep_all(start, steps), binomial(start, steps, 1))
    ]
    assert torch.equal(*found) and relative_error(found[0], expected) < 1e-12
    along = torch.randn(240, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    difference = central_difference(naive.phi, naive.no_change(), along, 1e-3)
    assert difference == pytest.approx((found[0] @ along).item(), rel=1e-8)


def test_a_probe_is_the_mean_over_the_crops_of_a_candidate(exact: tuple[PairRecipe, Problem]) -> None:
    """d phi / d eps of a training to which eps / m times the loss of each of its m crops is added, at the step."""
    recipe, problem = exact
    ids, step = np.array([7, 150]), 5
    plan = keep_all(step, problem.learner.steps)
    (point,) = replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, 240, [step]).probes
    (batch,) = recipe.candidates(ids, 0, step)
    assert recipe.views == 2 and batch.ids.tolist() == [7, 7, 150, 150]
    g = Probe(problem.learner, point).scores(batch.rows, batch.ids)[1].view(-1, 2).mean(1)
    draws = probe_draws(recipe.uids[ids], 2, recipe.seed, 0, step)
    views = open_clip_crops(recipe, ids.repeat(2), draws)
    assert torch.equal(views, batch.rows[0])
    for i, one in enumerate(ids.tolist()):
        pools = []
        for view in range(2):
            images = problem.pool[0].clone()
            images[one] = views[2 * i + view]
            pools.append(dataclasses.replace(problem, pool=(images, problem.pool[1])))
        naive = [NaiveRun(p, step).gradient(Joining(step, torch.tensor([one]), torch.zeros(1).double())) for p in pools]
        mean = torch.stack([each.joining for each in naive if each.joining is not None]).mean(0)
        assert relative_error(g[i : i + 1], mean) < 1e-10
    alone = [next(iter(recipe.candidates(ids[i : i + 1], 0, step))).rows[0] for i in (1, 0)]
    assert torch.equal(torch.cat(alone[::-1]), views), "whatever is scored beside it"


def test_a_probe_without_crops_scores_the_whole_picture(tmp_path: Path) -> None:
    on = ("[descent]", "[augmentation]\nprobe_crops = 0\n[descent]")
    with open_recipe(begun(tmp_path, on)) as recipe:
        (batch,) = recipe.candidates(np.arange(20), 1, 4)
        assert recipe.views == 1 and torch.equal(batch.rows[0], recipe.rows(np.arange(20))[0])
        (whole,) = recipe.batches([np.arange(20)])
        assert torch.equal(whole.rows[0], batch.rows[0]), "filters, too"


def test_reading_is_part_of_what_a_run_is_told_to_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> np.ndarray:
        time.sleep(0.6)
        return crops_of(*arguments)

    monkeypatch.setattr(modality, "crops_of", slowly)
    monkeypatch.setattr(step_costs, "cores", lambda: 16)
    on = ("[descent]", "[augmentation]\nprobe_crops = 4\n[descent]")
    with open_recipe(begun(tmp_path, on, ("threads = 1", "threads = 1\nreaders = 3"))) as recipe:
        costs = step_costs.measure(recipe)
        assert costs.read > 0.6 and min(costs.step, costs.reverse) >= costs.read / 3
        waiting = step_costs.StepCosts(step=2.0, reverse=2.0, state_bytes=1, read=6.0)
        monkeypatch.setattr(step_costs, "measure", lambda _: waiting)
        (told,) = step_costs.reading_note(recipe)
        assert "so steps wait for 3 readers: more of them (runtime.readers; there are 16 cores)" in told
        monkeypatch.setattr(step_costs, "cores", lambda: 3)
        assert step_costs.reading_note(recipe) == [], "no core is left for another"
        expected = 0.5 * 240 * 2 * 4 * 2  # share, samples, probe steps, crops, rounds
        assert f"{expected:,.0f} probes" in estimate._forecast(recipe, rounds.plan_of(recipe))


def test_a_step_is_paced_by_its_work_its_readers_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_costs, "cores", lambda: 4)
    on_cpu = RuntimeOptions(threads=2, readers=2)
    assert step_costs._paced(1.0, 0.5, on_cpu) == 1.0
    assert step_costs._paced(1.0, 3.0, on_cpu) == 1.5, "two readers"
    assert step_costs._paced(1.0, 3.0, RuntimeOptions(threads=2, readers=8)) == 1.25, "five seconds on four cores"
    assert step_costs._paced(1.0, 3.0, RuntimeOptions(device="cuda", readers=8)) == 1.0, "the device does the work"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("scle = [0.9, 1.0]", "did you mean 'scale'"),
        ("scale = [1.0, 0.9]", r"the first is the least and the second the most; got 1 and 0\.9"),
        ("scale = [0.0, 1.0]", "greater than 0"),
        ("scale = [0.5, 1.5]", "less than or equal to 1"),
        ("scale = 0.9", "scale"),
        ("ratio = [0.75]", "ratio"),
        ("ratio = [-1.0, 1.0]", "greater than 0"),
        ("probe_crops = -1", "probe_crops"),
        ('probe_crops = 2\n[descent]\nsurrogate = "path"', "surrogate 'path' probes nothing"),
    ],
)
def test_a_mistaken_section_is_refused(tmp_path: Path, section: str, message: str) -> None:
    old = "[descent]" if "[descent]" not in section else "[descent]\n"
    changes = [(old, f"[augmentation]\n{section}\n" + ("[descent]" if "[descent]" not in section else ""))]
    if "[descent]" in section:
        changes.append(("probe_steps = [4, 6]", ""))
    with pytest.raises(CatalogError, match=message):
        load_catalog(small_catalog(tmp_path, *changes))


def test_a_shipped_recipe_of_datacomp_crops() -> None:
    from tasks.files.package_data import CATALOGS

    catalog = load_catalog(CATALOGS / "examples" / "datacomp.toml")
    assert isinstance(catalog, Catalog) and catalog.augmentation == CROPS
    assert cropped(Image.new("RGB", (9, 9)), (1, 2, 3, 4), 5).shape == (3, 5, 5)
