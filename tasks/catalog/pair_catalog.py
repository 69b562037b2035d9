"""The catalog of a curation of image-text pairs: a CLIP, its zero-shot targets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from tasks.catalog.base import BaseCatalog
from tasks.catalog.recipe_options import SourceOptions, TrialOptions
from tasks.catalog.target_options import TargetOptions
from tasks.files.local_files import absolute
from tasks.files.option_types import Place, Section, Whole
from tasks.pool.census_kinds import CensusOptions
from tasks.pool.forms import PairForm
from tasks.sharding.options import ShardOptions


class PoolOptions(SourceOptions):
    """Where the candidate pairs come from: a sheet directory, WebDataset tars, or whatever `mgd shard` takes
    (pictures in folders, listings, Parquet files), which is sharded first, into the home."""

    shard_size: Whole = 1000
    """Pairs in each tar that is written (a pool that already is tars keeps its own)."""
    shard: ShardOptions | None = None
    """How pictures are sharded, in img2dataset's words; named, tars are cut anew as well."""
    metadata: Place | tuple[Place, ...] | None = None
    """DataComp's metadata Parquet (directory, glob, URLs), joined by uid; not named: the folder `metadata` beside a
    folder `shards`, if there is one; an empty list: none."""

    @property
    def sharding(self) -> ShardOptions | None:
        """The section `shard`."""
        return self.shard

    @property
    def form(self) -> PairForm:
        """Pairs in tars."""
        return PairForm()

    def resolved(self, base: Path) -> Self:
        """The same with sources and metadata made absolute."""
        named, moved = self.metadata, super().resolved(base)
        if named is None:
            return moved
        metadata = absolute(named, base) if isinstance(named, str) else tuple(absolute(s, base) for s in named)
        return moved.model_copy(update={"metadata": metadata})


class ModelOptions(Section):
    """The CLIP that is trained."""

    kind: Literal["clip"] = "clip"
    """A CLIP of open_clip; `causal_lm` makes the catalog one of texts."""
    config: Place
    """open_clip model config (JSON); relative to the catalog file. Its vocabulary may be larger than `vocabulary`."""
    vocabulary: Literal["used", "full"] = "used"
    """`used`: only the tokens that occur in pool and tasks get an embedding; `full`: open_clip's 49,408."""


class ComparisonOptions(TrialOptions):
    """Rivals of a subset of pairs."""

    subsets: tuple[Literal["everything", "mgd", "random", "loss_filter", "own_clip_filter", "oracle"], ...] = (
        "everything",
        "random",
        "loss_filter",
        "own_clip_filter",
        "mgd",
    )
    """`loss_filter`: lowest loss, `own_clip_filter`: highest cosine of picture and caption, both by the model that
    round 0 trained, not by scores that the pool brought along (for these see `rivals`); `oracle`: what the truth calls
    right."""


class Catalog(BaseCatalog):
    """A curation of image-text pairs for a CLIP."""

    model_places = ("config",)
    pool: PoolOptions
    targets: TargetOptions
    model: ModelOptions
    comparison: ComparisonOptions = ComparisonOptions()
    census: CensusOptions = CensusOptions()
    """What `mgd census` may find, kind by kind: `limits`."""
