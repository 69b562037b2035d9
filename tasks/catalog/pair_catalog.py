"""The catalog of a curation of image-text pairs: a CLIP, its zero-shot targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.catalog.base import BaseCatalog
from tasks.catalog.pair_targets import TargetOptions
from tasks.catalog.recipe_options import SourceOptions, TrialOptions
from tasks.catalog.subset_names import BUILT_IN
from tasks.files.local_files import absolute
from tasks.files.option_types import Place, Positive, Section, Whole
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
    clamp_logit_scale: bool = False
    """What keeps the learned scale of the logits (its inverse temperature) at 100 at most. true: after every step its
    logarithm is brought back between 0 and ln 100, as open_clip trains (where that happens, the step passes no
    derivative on through it); false: the loss takes no larger one, and the parameter goes where it goes."""

    @model_serializer(mode="wrap")
    def _as_before_it_could_clamp(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs are known by what their catalog says: one that says nothing of it is known as it always was."""
        said: dict[str, Any] = dump(self)
        return {key: value for key, value in said.items() if key != "clamp_logit_scale" or value}


def _ascending(range_: tuple[float, float]) -> tuple[float, float]:
    if range_[0] > range_[1]:
        raise ValueError(f"the first is the least and the second the most; got {range_[0]:g} and {range_[1]:g}")
    return range_


Part = Annotated[float, Field(gt=0, le=1)]
ASCENDING = AfterValidator(_ascending)


class AugmentationOptions(Section):
    """Random crops of the pictures that trainings see: open_clip's `RandomResizedCrop`, bicubic, drawn from seed,
    round, step and position in the batch, so that a replay sees them again. Without the section nothing is cropped; an
    empty one is open_clip's own. Trainings of rounds, comparison and smoothness crop; targets, tests and filters see
    the picture whole, its shorter side scaled and the centre cut. Every visit decodes its picture anew."""

    scale: Annotated[tuple[Part, Part], ASCENDING] = (0.9, 1.0)
    """Least and most share of a picture's area that a crop shows."""
    ratio: Annotated[tuple[Positive, Positive], ASCENDING] = (3 / 4, 4 / 3)
    """Least and most of its width over its height, before both are scaled to the model's size."""
    probe_crops: Annotated[int, Field(ge=0, le=1024)] = 1
    """Crops of a candidate that its g is the mean over (surrogate `probe`), each the cost of a probe, others at every
    step and round; 0: its g is that of the picture as targets and tests see theirs."""


class ComparisonOptions(TrialOptions):
    """Rivals of a subset of pairs."""

    built_in: ClassVar[tuple[str, ...]] = tuple(name for name in BUILT_IN if name != "embedding_filter")
    subsets: tuple[str, ...] = ("everything", "random", "loss_filter", "own_clip_filter", "mgd")
    """`everything`; `mgd`: what descent chose; `oracle`: what the truth calls right; and as many samples as `mgd` has:
    `random`; `gradient_filter`: what single steps of a training do to the target's loss (LESS); and by the model that
    round 0 trained, not by scores that the pool brought along (for these see `rivals`), `loss_filter`: lowest loss,
    `own_clip_filter`: highest cosine of picture and caption, `negclip_filter`: lowest loss among all pairs or 32,768
    (negCLIPLoss), `norm_sim_filter`: nearest to a picture of the target (NormSim), `negclip_norm_sim_filter`: best by
    both, `domain_match_filter`: nearest to the target's mean picture and class text, `color_filter`: made easier by
    tuning on the target (CoLoR), `influence_filter`: influence on the target's loss (Gauss-Newton, which EK-FAC and
    TRAK approximate).
    `FILTER@GROUPING`, say `loss_filter@source`: whole groups, as `descent.groups` names them, by the mean of the
    filter's scores over each."""


class Catalog(BaseCatalog):
    """A curation of image-text pairs for a CLIP."""

    model_places = ("config",)
    pool: PoolOptions
    targets: TargetOptions
    model: ModelOptions
    augmentation: AugmentationOptions | None = None
    """How trainings crop their pictures; None: not at all."""
    comparison: ComparisonOptions = ComparisonOptions()
    census: CensusOptions = CensusOptions()
    """What `mgd census` may find, kind by kind: `limits`."""

    @model_validator(mode="after")
    def _probe_crops_are_probed(self) -> Self:
        if self.descent.surrogate == "path" and self.augmentation and self.augmentation.probe_crops != 1:
            raise ValueError(
                "augmentation.probe_crops: surrogate 'path' probes nothing, its g is that of the crops that were "
                "trained on; remove it"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_it_could_crop(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs are known by what their catalog says: one that says nothing of crops is known as it always was."""
        said: dict[str, Any] = dump(self)
        return {key: value for key, value in said.items() if key != "augmentation" or value is not None}
