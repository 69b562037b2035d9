"""The training recipe of a catalog: optimizer, schedule, order of the data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.files.option_types import Bytes, Decay, FromZero, NotNegative, Positive, Section, Seed, Share, Steps, Whole


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
    chunk_memory: Bytes | None = None
    """Instead of `chunk`: bytes that a reverse step may take, kept states apart, say "45GiB"; the rows encoded at once
    follow from the sizes of the model, by a count that is the same on every machine (of float32; bfloat16 takes
    less)."""
    seed: Seed = 0
    """Seed of a study's training; in a curation rounds are drawn from `descent.seed`, comparisons from their own."""

    @model_validator(mode="after")
    def _window_holds_a_batch(self) -> LearnerOptions:
        if self.window is not None and self.window < self.batch:
            raise ValueError(f"window ({self.window}) is smaller than a batch ({self.batch})")
        return self

    @model_validator(mode="after")
    def _one_chunk(self) -> LearnerOptions:
        if self.chunk is not None and self.chunk_memory is not None:
            raise ValueError("chunk and chunk_memory both say how many rows are encoded at once; remove one")
        return self

    @model_serializer(mode="wrap")
    def _as_before_chunks_went_by_memory(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs are known by what their catalog says: one that says nothing of it is known as it always was."""
        said: dict[str, Any] = dump(self)
        return {key: value for key, value in said.items() if key != "chunk_memory" or value is not None}

    @model_validator(mode="after")
    def _warmup_fits(self) -> LearnerOptions:
        if self.warmup > self.steps:
            raise ValueError(f"warmup ({self.warmup}) is longer than the training ({self.steps} steps)")
        return self
