"""What is known of a sample, and models of it: features against the definition, cross-fitting against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgd_core.descent.shrinkage import denoised
from tasks.modality.base import Seen
from tasks.scoring import features, numbers
from tasks.scoring.features import CUT, FeatureError, Layout, layout_of
from tasks.scoring.fitting import FOLDS, Known, fit, folds
from tasks.scoring.numbers import numbers_of
from tasks.tables.uids import Bytes16

N, D = 700, 4


def known(n: int = N) -> tuple[Known, Bytes16]:
    """Two embeddings, a loss, and numbers of the pool: one with gaps, one alike for all."""
    draw = np.random.default_rng(0)
    vectors = tuple(draw.normal(size=(n, D)).astype(np.float32) for _ in range(2))
    vectors = tuple(one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors)
    score = np.where(draw.random(n) < 0.1, np.nan, draw.normal(3, 2, n))
    own = {"score": score, "width": np.full(n, 32.0), "words": draw.integers(1, 9, n).astype(float)}
    uids = np.sort(np.frombuffer(draw.bytes(16 * n), "S16"))
    return Known(Seen(vectors, {"loss": draw.exponential(size=n)}), own), uids


def test_features_are_as_described() -> None:
    (seen, own), _ = known()
    layout = layout_of(seen, own)
    found = layout.rows(seen, own, slice(0, N))
    images, texts = seen.vectors
    score, loss = own["score"], seen.numbers["loss"]
    gap = np.isnan(score)
    z = np.clip((loss - loss.mean()) / loss.std(), -CUT, CUT)
    s = np.where(gap, 0, (score - np.nanmean(score)) / np.nanstd(score))
    w = (own["words"] - own["words"].mean()) / own["words"].std()
    expected = [images * D**0.5, texts * D**0.5, images * texts * D, z, z**2, s, s**2, gap, w, w**2]
    assert found.dtype == np.float32 and len(layout) == found.shape[1] == 3 * D + 7, "what is alike for all is left out"
    np.testing.assert_allclose(found, np.column_stack(expected), atol=2e-5)
    some = np.array([5, 3, 600])
    np.testing.assert_array_equal(layout.rows(seen, own, some), found[some])
    assert Layout.read(layout.told()) == layout
    with pytest.raises(FeatureError, match="reads score, which the pool has not; it has words"):
        layout.check({"words": own["words"]}, "pool x")


def test_no_sample_is_expected_by_a_model_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there, uids = known()
    draw = np.random.default_rng(1)
    signal = 4 * (there.seen.vectors[0] * there.seen.vectors[1]).sum(1) + there.seen.numbers["loss"]
    y, weight = signal + draw.standard_t(2, size=N), draw.integers(0, 4, N).astype(float)
    found, fold = fit(there, uids, y, weight), folds(uids)
    assert np.bincount(fold, minlength=FOLDS).min() > N / FOLDS / 2
    assert np.corrcoef(found.expected, signal)[0, 1] > 0.8
    changed = y.copy()
    changed[fold == 2] += 10 * draw.normal(size=(fold == 2).sum())
    with monkeypatch.context() as patched:
        # Outliers are cut off by the median of all: nothing else of a sample's own g reaches what is expected of it.
        patched.setattr("tasks.scoring.fitting._without_outliers", lambda y, _: y)
        one, two = fit(there, uids, y, weight), fit(there, uids, changed, weight)
    np.testing.assert_allclose(two.expected[fold == 2], one.expected[fold == 2], atol=1e-9)
    assert np.abs(two.expected - one.expected)[fold != 2].min() > 0

    layout = layout_of(*there)
    x = layout.rows(there.seen, there.own, slice(0, N)).astype(float)
    for k in range(FOLDS):  # by the definition, at the penalty that was found
        rest = (fold != k) & (weight > 0)
        w = weight[rest] / weight[rest].sum()
        centre, size = w @ x[rest], np.sqrt(w @ (x[rest] - w @ x[rest]) ** 2)
        z = (x - centre) / size
        errors = []
        for penalty in 10.0 ** (np.arange(-8, 9) / 2):
            gram = z[rest].T @ (w[:, None] * z[rest]) + penalty * np.eye(x.shape[1])
            beta = np.linalg.solve(gram, z[rest].T @ (w * y[rest]))
            errors.append(np.abs(w @ y[rest] + z[fold == k] @ beta - one.expected[fold == k]).max())
        assert min(errors) < 1e-6
    monkeypatch.setattr(features, "STRETCH", 8 * 100)
    np.testing.assert_allclose(fit(there, uids, y, weight).expected, found.expected, atol=1e-9)


def test_the_blend_is_closer_to_the_truth_than_either() -> None:
    there, uids = known(20_000)
    draw = np.random.default_rng(2)
    said = 2 * (there.seen.vectors[0] * there.seen.vectors[1]).sum(1) + 0.5 * there.seen.numbers["loss"]
    groups = draw.integers(0, 20, 20_000)
    true = said + 0.5 * draw.normal(size=20)[groups] + 0.3 * draw.normal(size=20_000)
    y, noise = true + draw.normal(size=20_000), np.ones(20_000)
    expected = fit(there, uids, y, np.ones(20_000)).expected

    def error(values: np.ndarray) -> float:
        return float(np.mean((values - true) ** 2))

    both = denoised(y, noise, [groups], expected)
    assert error(both.values) < 0.8 * min(error(denoised(y, noise, [groups]).values), error(expected))
    assert error(both.values) < 0.25 * error(y)
    assert both.slope == pytest.approx(1, abs=0.15)
    assert np.mean(both.errors**2) == pytest.approx(error(both.values), rel=0.3)


def test_numbers_of_a_pool(tmp_path: Path, rows: object, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"clip": pa.array([0.5, None, 0.25, 1.0], pa.float32()), "safe": [True, False, True, True]}
    more |= {"truth_clean": [True] * 4, "domain": ["a"] * 4, "text": ["a b", "", "drei  \u00e4pfel", "x"]}
    table = rows("samples", **more)  # type: ignore[operator]
    pq.write_table(table, tmp_path / "samples.parquet")

    class Pool:
        directory, samples_path, samples_digest = tmp_path, tmp_path / "samples.parquet", "0" * 32

    monkeypatch.setattr(numbers, "STRETCH", 3)
    found = numbers_of(Pool())  # type: ignore[arg-type]
    assert list(found) == ["width", "height", "clip", "safe", "caption characters", "caption words"]
    np.testing.assert_array_equal(found["clip"], [0.5, np.nan, 0.25, 1.0])
    assert found["safe"].tolist() == [1, 0, 1, 1] and found["caption characters"].tolist() == [3, 0, 11, 1]
    assert found["caption words"][[0, 3]].tolist() == [2, 1]
