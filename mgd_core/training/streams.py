"""Numbers of the random streams: what stands behind the seed in `order.generator(seed, *stream)`.

The batches of round r and epoch e are drawn from (seed, r, e, ...), so a stream of anything else begins beyond every
round. The three lowest do not, and as SeedSequence fills up with zeros they are also those of rounds 7, 8 and 9 in
their first epoch, where the seeds are equal: what is drawn from them is another thing (a subset, not an order), and
their numbers are part of what was published. A clash shows nowhere else: add a stream here.
"""

from __future__ import annotations

RANDOM_SUBSETS = 7
"""Random subsets that a comparison trains on."""
CAPTION_BATCHES = 8
"""Which samples of a pool stand in one batch when a CLIP scores all of them."""
WARM_UP = 9
"""Samples of the warm-up before gradients are compared (LESS)."""
MOST_ROUNDS = 10_000
"""Rounds of a descent; each is a stream of its own."""
CLUSTERS, TARGETS = 1 << 22, 1 << 23
"""Embeddings that centres of clusters are found on; the part of the target that a round lowers, by round."""
BOOTSTRAP = 1 << 24
"""Seeds and test samples that intervals are resampled over."""
NEGATIVES, CURVATURE = 1 << 25, 1 << 26
"""Batches of the whole pool in which pairs meet each other, by turn; directions along which curvature is estimated."""
POISONS = 1 << 27
"""Samples that are changed, and with what."""
CROPS, PROBE_CROPS = 1 << 28, 3 << 27
"""Crops of the pictures of a batch, by round and step; of candidates, by round, probe step and uid."""
DROPS = 1 << 29
"""Random subsets that are dropped, of s samples from DROPS + s; and the bootstrap of their scores."""
DIRECTIONS = 1 << 31
"""Directions of metaparameters, along which smoothness is measured."""

ROUND_STREAM = 1_000
"""Initial weights of round r are drawn from seed * ROUND_STREAM + r."""
REPLICATES = 1_000_000
"""Replicate s of a round has the seed of the rounds plus s * REPLICATES."""
