"""Filters that anyone could have used on pairs, without the truth: lowest loss, highest cosine of picture and caption.

Both are by the model that round 0 trained, on the whole pool unless the catalog has a start. A CLIP score that the pool
brought along, by a better model, is another rival: the catalog names it (`expression_rivals`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mgd_core.order import generator
from mgd_core.streams import CAPTION_BATCHES
from tasks.artefacts import publishing
from tasks.rounds import PROBE_BATCH, load_parameters
from tasks.workbench import Workbench


def pool_scores(bench: Workbench) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Contrastive loss (nats) and cosine of every pair (n,), by the model of round 0.

    The losses are taken in batches of a fixed permutation, since each needs negatives.
    """
    path = bench.run.work("comparison", "pool-scores.npy")
    if path.exists():
        losses, cosines = np.load(path)
        return losses, cosines
    theta = load_parameters(bench.run.work("round-000", "replayed.json")).to(bench.catalog.runtime.device)
    learner, _ = bench.learner(np.ones(len(bench), np.int64), 0)
    objective, params = learner.objective, learner.layout.unflatten(theta)
    scores = np.empty((2, len(bench)))
    order = generator(0, CAPTION_BATCHES).permutation(len(bench))
    parts = np.array_split(order, max(1, len(order) // PROBE_BATCH))
    with torch.no_grad():
        for ids, batch in zip(parts, bench.batches(parts), strict=True):
            image, text = features = objective.encode(params, batch.rows)
            scores[0, ids] = objective.losses(params, features).double().cpu().numpy()
            scores[1, ids] = (image * text).sum(1).double().cpu().numpy()
    with publishing(path) as file:
        np.save(file, scores)
    return scores[0], scores[1]
