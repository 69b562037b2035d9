"""The training recipe of a catalog: optimizer, schedule, order of the data."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tasks.files.option_types import Decay, FromZero, NotNegative, Positive, Section, Seed, Share, Steps, Whole


class LearnerOptions(Section):
    """The training recipe, the same for every subset."""

    steps: Steps
    """Length of a training, in batches; the same whatever the subset, so that subsets are compared at equal cost."""
    batch: Whole
    """Samples of a step, all different; for a CLIP each is a negative of the others."""
    learning_rate: Positive
    """Peak of the schedule."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """After the warm-up: a cosine down to 0, a straight line down to 0 (`one_cycle`), or no change."""
    warmup: FromZero = 0
    """First steps, over which the rate rises from 0 to its peak."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, with weight decay apart from the gradient (AdamW); or SGD with momentum."""
    b1: Decay = 0.9
    """Adam: share of its running mean of gradients that a step keeps."""
    b2: Decay = 0.98
    """Adam: the same, of squared gradients."""
    eps: Positive = 1e-6
    """Adam: added to the root of the mean square."""
    eps_root: NotNegative = 1e-8
    """Adam: added under that root; larger is smoother and less adaptive."""
    momentum: Share = 0.9
    """SGD: share of its motion that a step keeps."""
    weight_decay: NotNegative = 0.0
    """Share of a weight matrix that is taken away in a step, times the learning rate; vectors are left alone."""
    clip_norm: Positive | None = None
    """Gradients of a greater norm are scaled down to it; None: never."""
    window: Whole | None = None
    """Samples that are shuffled together: shards come in a seeded order, and as many as hold this many samples are
    permuted as one, so that a pool that is not kept decoded (`runtime.decoded_disk`) is read once an epoch, shard by
    shard, with the files of three windows in memory. None: the whole pool, every batch from everywhere."""
    chunk: Whole | None = None
    """Rows encoded at once; None: the whole batch. Changes memory, and results by rounding only."""
    seed: Seed = 0
    """Seed of a study's training; in a curation rounds are drawn from `descent.seed`, comparisons from their own."""

    @model_validator(mode="after")
    def _window_holds_a_batch(self) -> LearnerOptions:
        if self.window is not None and self.window < self.batch:
            raise ValueError(f"window ({self.window}) is smaller than a batch ({self.batch})")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> LearnerOptions:
        if self.warmup > self.steps:
            raise ValueError(f"warmup ({self.warmup}) is longer than the training ({self.steps} steps)")
        return self
