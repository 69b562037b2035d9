"""The catalog: one TOML file that says everything about a curation.

Every option is a field with its unit and meaning; unknown keys are refused with the nearest valid one. A catalog is
read once, checked before any work, and copied into the run with its digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from tasks import pools
from tasks.catalog_files import CATALOGS, CatalogError, find_file, read_file
from tasks.census_kinds import CensusOptions
from tasks.remotes import RemoteOptions
from tasks.smoothness_options import SmoothnessOptions
from tasks.subset_expressions import parse, rebased
from tasks.target_options import TargetOptions, TaskOptions


class Section(BaseModel):
    """A table of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]


class PoolOptions(Section):
    """Where the candidate pairs come from."""

    source: str | tuple[str, ...]
    """A sheet directory, or WebDataset tars (paths, globs or fsspec URLs); relative to the catalog file."""
    how_to_get: str = ""
    """What to do if the source is not there; told to whoever starts the catalog without it."""
    shard_size: Whole = 1000
    """Pairs in each tar that is written (a pool that already is tars keeps its own)."""
    max_rejects: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)] = 0.01
    """Bad samples that are recorded and left out before the flow stops: a share (0.01) or a whole number."""
    max_damaged_shards: Annotated[int, Field(ge=0)] = 0
    """Truncated or corrupt tars that are gone through as far as they can be read before the flow stops."""
    metadata: str | tuple[str, ...] | None = None
    """DataComp's metadata Parquet (directory, glob, URLs), joined by uid; not named: the folder `metadata` beside a
    folder `shards`, if there is one; an empty list: none."""
    remote: RemoteOptions = RemoteOptions()
    """How patiently remote stores are read, and how much of them is kept in the home; changes no result."""

    def build_options(self) -> pools.BuildOptions:
        """What the pool's builder needs of this."""
        return pools.BuildOptions(**self.model_dump(exclude={"source", "how_to_get"}))


class ModelOptions(Section):
    """The CLIP that is trained."""

    config: str
    """open_clip model config (JSON); relative to the catalog file. Its vocabulary may be larger than `vocabulary`."""
    vocabulary: Literal["used", "full"] = "used"
    """`used`: only the tokens that occur in pool and tasks get an embedding; `full`: open_clip's 49,408."""


class LearnerOptions(Section):
    """The training recipe, the same for every subset."""

    steps: Whole
    batch: Whole
    learning_rate: Positive
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 0
    optimizer: Literal["adam", "sgd"] = "adam"
    b1: Share = 0.9
    b2: Share = 0.98
    eps: Positive = 1e-6
    eps_root: Annotated[float, Field(ge=0)] = 1e-8
    """Added under Adam's square root; larger is smoother and less adaptive."""
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Positive | None = None
    window: Whole | None = None
    """Samples that are shuffled together: shards come in a seeded order, and as many as hold this many samples are
    permuted as one, so that a pool that is not kept decoded (`runtime.decoded_disk`) is read once an epoch, shard by
    shard, with the files of three windows in memory. None: the whole pool, every batch from everywhere."""
    chunk: Whole | None = None
    """Rows encoded at once; None: the whole batch. Changes memory, and results by rounding only."""
    seed: Annotated[int, Field(ge=0)] = 0

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


Selection = Literal["heldout_loss", "heldout_accuracy", "heldout_accuracy_1se"]


_MEMORY, _DISK = "the number of states it may keep at once in memory", "the number of states it keeps on disk"
PLAN_OPTIONS: dict[str, dict[str, str]] = {
    "keep_all": {},
    "binomial": {"slots": _MEMORY},
    "kary": {"arity": "the number of children of a node, 2 or more"},
    "segments": {"slots": _MEMORY, "disk_states": _DISK},
    "auto": {"device_memory": 'the bytes of training states it may keep in the device\'s memory, say "8GiB"'},
}
"""Which options each plan needs, and what they are."""
MAY_HAVE = {"auto": {"host_memory", "disk_space"}}
"""Which options a plan takes besides."""


class DescentOptions(Section):
    """How counts are moved from round to round."""

    rounds: Annotated[int, Field(ge=1)]
    start: str | None = None
    """The counts of round 0, as `mgd subset` takes them (`clip_score(fraction=0.3) & basic`, or the path of a subset);
    None: every sample once. Samples that it leaves out stand at 0, and may be raised in a later round."""
    surrogate: Literal["probe", "path"] = "probe"
    """`probe`: weights enter at `probe_steps` and the pool is scored there; `path`: wherever a sample is seen."""
    window_start: Annotated[int, Field(ge=0)] = 0
    """First differentiated step k."""
    probe_steps: tuple[int, ...] = ()
    """Steps at which candidates enter (surrogate `probe`); empty: the window's first step."""
    plan: Literal["keep_all", "binomial", "kary", "segments", "auto"] = "keep_all"
    """Which training states the reverse sweep keeps: all of them; at most `slots` in memory with least recomputation
    (`binomial`); the paper's tree (`kary`); `disk_states` on disk, and between them at most `slots` in memory
    (`segments`); the cheapest that fits in `device_memory`, `host_memory` and `disk_space` (`auto`)."""
    slots: Whole | None = None
    """States kept in memory at once: plans `binomial` and `segments`."""
    arity: Annotated[int, Field(ge=2)] | None = None
    """Children of a node: plan `kary`."""
    disk_states: Whole | None = None
    """States kept on disk at once, in the run's directory: plan `segments`."""
    device_memory: ByteSize | None = None
    """Bytes of kept states in the memory of the device (main memory, on a CPU), say "8GiB": plan `auto`. A step's own
    needs come on top."""
    host_memory: ByteSize | None = None
    """Bytes of kept states in main memory, beside a GPU: plan `auto`."""
    disk_space: ByteSize | None = None
    """Bytes of kept states in the run's directory: plan `auto`."""
    checkpoint_seconds: Positive = 300.0
    """Most seconds of a round's training and differentiation that a killed process may lose; changes no result."""
    checkpoint_steps: Whole | None = None
    """Most steps of either sweep that a killed process may lose, where that is less; changes no result."""
    rule: Literal["sign", "exchange"] = "sign"
    p: Share = 0.2
    """Share of the pool that is masked in (scored and moved) each round."""
    share: Share = 0.2
    """`exchange`: share of the masked samples raised, and lowered."""
    memory: Share = 0.0
    """Weight of earlier rounds' metagradients in the step: 0 is the paper's rule, 1 sums all rounds alike."""
    scale: Literal["none", "sample", "count"] = "none"
    """`sample`: divide a sample's summed g by the root of its sum of squares, so that steady ones move first. `count`:
    before summing, divide g by the median size among samples of the same count, without outliers."""
    max_count: Whole | None = None
    """Ceiling of a sample's count; None: no ceiling."""
    select: Selection = "heldout_loss"
    """What chooses the round; `heldout_accuracy_1se`: the last round within one standard error of the best."""
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("start")
    @classmethod
    def _start_can_be_read(cls, text: str | None) -> str | None:
        return text and str(parse(text))

    @model_validator(mode="after")
    def _plan_has_its_options(self) -> DescentOptions:
        needs, takes = PLAN_OPTIONS[self.plan], MAY_HAVE.get(self.plan, set())
        for option in ("slots", "arity", "disk_states", "device_memory", "host_memory", "disk_space"):
            if option in needs and getattr(self, option) is None:
                raise ValueError(f"plan '{self.plan}' needs '{option}': {needs[option]}")
            if option not in needs and option not in takes and getattr(self, option) is not None:
                raise ValueError(f"plan '{self.plan}' has no use for '{option}'; remove it, or name another plan")
        return self


class ComparisonOptions(Section):
    """The trainings that put the chosen subset beside its rivals, at equal samples seen."""

    subsets: tuple[Literal["everything", "mgd", "random", "loss_filter", "clip_filter", "oracle"], ...] = (
        "everything",
        "random",
        "loss_filter",
        "clip_filter",
        "mgd",
    )
    seeds: tuple[int, ...] = (101, 102, 103)


class RuntimeOptions(Section):
    """Where it runs."""

    device: str = "cpu"
    threads: Whole = 2
    """CPU threads of a training; part of the run's identity, since it changes results bit for bit."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the encoders' products: `tf32` for NVIDIA GPUs; `bfloat16` moves g visibly (see
    benchmarks/results/precision.md). Parameters, moments and all sums stay in float32."""
    runner: Literal["threads", "processes", "ray", "dask"] = "threads"
    workers: Whole = 1
    readers: Whole = 2
    """Threads that read and decode the next batches of a training while a step runs."""
    decoded_disk: ByteSize | None = None
    """Most bytes of decoded pictures kept in a file beside the pool, say "100GiB". A pool that needs more is decoded
    batch by batch; None: no limit."""
    batch_cache: ByteSize = ByteSize(0)
    """Bytes of decoded batches kept in main memory for replays, those needed soonest; for pools that are not kept
    decoded. None of these four changes a result."""


class Catalog(Section):
    """One curation."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    description: str = ""
    pool: PoolOptions
    targets: TargetOptions
    model: ModelOptions
    learner: LearnerOptions
    descent: DescentOptions
    comparison: ComparisonOptions = ComparisonOptions()
    census: CensusOptions = CensusOptions()
    """What `mgd census` may find, kind by kind: `limits`."""
    smoothness: SmoothnessOptions = SmoothnessOptions()
    """How smooth the recipe has to be: `bar`; how that is measured, and the `menu` of an ablation."""
    runtime: RuntimeOptions = RuntimeOptions()

    @model_validator(mode="after")
    def _window_lies_in_training(self) -> Catalog:
        steps, first = self.learner.steps, self.descent.window_start
        outside = [k for k in (first, *self.descent.probe_steps) if not first <= k < steps]
        if outside:
            raise ValueError(f"steps {outside} lie outside the differentiated window [{first}, {steps})")
        if (self.descent.disk_states or 0) > steps - first:
            raise ValueError(f"disk_states = {self.descent.disk_states}: the window has {steps - first} states only")
        return self

    @model_validator(mode="after")
    def _menu_fits(self) -> Catalog:
        menu, steps = self.smoothness.menu, self.learner.steps
        late = [k for k in menu.window_start if k >= steps]
        if late or max(menu.warmup, default=0) > steps:
            raise ValueError(
                f"smoothness.menu: window_start {late or ''} or warmup {list(menu.warmup)} go beyond the training's "
                f"{steps} steps"
            )
        if menu.eps_root and self.learner.optimizer != "adam":
            raise ValueError(f"smoothness.menu.eps_root: '{self.learner.optimizer}' has none; remove it")
        return self


def find_catalog(name: str) -> Path:
    """Path of a catalog given as a file, or by the name of one that travels with the package.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    return find_file("catalog", name, CATALOGS)


def load_catalog(path: Path) -> Catalog:
    """Read and check a catalog; source paths in it become absolute.

    Raises:
        CatalogError: with every problem found: file, key, value, and the nearest valid key for a typo.
    """
    return _resolved(read_file(path, Catalog), path.parent)


def check_sources(catalog: Catalog) -> None:
    """See that the local files a catalog names are there, before any work.

    Raises:
        CatalogError: naming the first that is missing, and how to get it if the catalog says so.
    """
    source = catalog.pool.source
    tasks = (catalog.targets.target, catalog.targets.heldout, *catalog.targets.tests.values())
    named = [("pool.source", s) for s in ((source,) if isinstance(source, str) else source)]
    named += [("a target's source", task.source) for task in tasks] + [("model.config", catalog.model.config)]
    for key, place in named:
        if "://" not in place and not set(place) & set("*?[{") and not Path(place).exists():
            told = f"catalog '{catalog.name}': {key} {place} is not there. {catalog.pool.how_to_get}"
            raise CatalogError(told.rstrip())


def _resolved(catalog: Catalog, base: Path) -> Catalog:
    """The same catalog with paths made absolute."""

    def absolute(source: str) -> str:
        return source if "://" in source else str((base / source).resolve())

    def task(options: TaskOptions) -> TaskOptions:
        return options.model_copy(update={"source": absolute(options.source)})

    source = catalog.pool.source
    moved = absolute(source) if isinstance(source, str) else tuple(absolute(s) for s in source)
    metadata = catalog.pool.metadata
    if metadata is not None:
        metadata = absolute(metadata) if isinstance(metadata, str) else tuple(absolute(s) for s in metadata)
    targets = catalog.targets.model_copy(
        update={
            "target": task(catalog.targets.target),
            "heldout": task(catalog.targets.heldout),
            "tests": {name: task(options) for name, options in catalog.targets.tests.items()},
        }
    )
    start = catalog.descent.start
    return catalog.model_copy(
        update={
            "descent": catalog.descent.model_copy(update={"start": start and str(rebased(parse(start), base))}),
            "pool": catalog.pool.model_copy(update={"source": moved, "metadata": metadata}),
            "targets": targets,
            "model": catalog.model.model_copy(update={"config": absolute(catalog.model.config)}),
        }
    )
