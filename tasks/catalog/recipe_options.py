"""The parts of a catalog that do not depend on what is trained: descent, comparison, runtime, source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ByteSize, Field, field_serializer, field_validator, model_validator

from mgd_core.training.streams import MOST_ROUNDS
from tasks.catalog.device_options import DeviceSection, kind_of_device
from tasks.catalog.subset_names import RENAMED, TAKEN, check_subset, filter_and_column, spelt
from tasks.files.local_files import absolute
from tasks.files.option_types import (
    Bytes,
    Distinct,
    Filled,
    FromZero,
    NotNegative,
    Place,
    Positive,
    Section,
    Seed,
    Share,
    Whole,
    Workers,
    distinct,
)
from tasks.pool.forms import SampleForm
from tasks.pool.record import BuildOptions, Tolerance
from tasks.sharding.options import ShardOptions
from tasks.subset.expressions import ExpressionError, parse


class SourceOptions(Tolerance):
    """Where the candidates come from, and how much of it may be bad."""

    source: Place | Annotated[tuple[Place, ...], Filled]
    """Files, by paths, globs or fsspec URLs; relative to the catalog file."""
    how_to_get: str = ""
    """What to do if the source is not there; told to whoever starts the catalog without it."""

    @property
    def sources(self) -> str | list[str]:
        """The source as pool builders take it."""
        return self.source if isinstance(self.source, str) else list(self.source)

    def build_options(self) -> BuildOptions:
        """What the pool's builder needs of this."""
        return BuildOptions(**self.model_dump(include=set(BuildOptions.model_fields)), form=self.form)

    @property
    def sharding(self) -> ShardOptions | None:
        """How what is no tars yet becomes some; None: as it is usual, where it has to."""
        return None

    @property
    def form(self) -> SampleForm:
        """How the samples lie in the files."""
        raise NotImplementedError

    def resolved(self, base: Path) -> Self:
        """The same with sources made absolute, relative ones being below ``base``."""
        named = self.source
        moved = absolute(named, base) if isinstance(named, str) else tuple(absolute(s, base) for s in named)
        return self.model_copy(update={"source": moved})


Selection = Literal["heldout_loss", "heldout_accuracy", "heldout_accuracy_1se"]
NO_ROUNDS = "no rounds"
"""What chooses in a run that only compares."""


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

    rounds: Annotated[int, Field(ge=0, le=MOST_ROUNDS)]
    """Rounds of training, differentiating and moving the counts; one training more evaluates the last counts. 0:
    comparison only, the recipe trained and tested on what `comparison` names."""
    start: str | None = None
    """The counts of round 0, as `mgd subset` takes them (`clip_score(fraction=0.3) & basic`, or the path of a subset);
    None: every sample once. Samples that it leaves out stand at 0, and may be raised in a later round."""
    surrogate: Literal["probe", "path"] = "probe"
    """`probe`: weights enter at `probe_steps` and the pool is scored there; `path`: wherever a sample is seen."""
    window_start: FromZero = 0
    """First differentiated step k."""
    probe_steps: tuple[int, ...] = ()
    """Steps at which candidates enter (surrogate `probe`); empty: the window's first step."""
    replicates: Annotated[int, Field(ge=1, le=100)] = 1
    """Trainings of every round, on the same counts from other initial weights in other orders; g is the mean over them,
    and what they differ by its error. A round costs as many times as much."""
    plan: Literal["keep_all", "binomial", "kary", "segments", "auto"] = "keep_all"
    """Which training states the reverse sweep keeps: all of them; at most `slots` in memory with least recomputation
    (`binomial`); the paper's tree (`kary`); `disk_states` on disk, and between them at most `slots` in memory
    (`segments`); the cheapest that fits in `device_memory`, `host_memory` and `disk_space` (`auto`)."""
    slots: Whole | None = None
    """States kept in memory at once: plans `binomial` and `segments`."""
    arity: Annotated[int, Field(ge=2, le=10**8)] | None = None
    """Children of a node: plan `kary`."""
    disk_states: Whole | None = None
    """States kept on disk at once, in the run's directory: plan `segments`."""
    device_memory: Bytes | None = None
    """Bytes of kept states in the memory of the device (main memory, on a CPU), say "8GiB": plan `auto`. A step's own
    needs come on top."""
    host_memory: Bytes | None = None
    """Bytes of kept states in main memory, beside a GPU: plan `auto`."""
    disk_space: Bytes | None = None
    """Bytes of kept states in the run's directory: plan `auto`."""
    checkpoint_seconds: Positive = 300.0
    """Most seconds of a round's training and differentiation that a killed process may lose; changes no result."""
    checkpoint_steps: Whole | None = None
    """Most steps of either sweep that a killed process may lose, where that is less; changes no result."""
    rule: Literal["sign", "exchange", "confident"] = "sign"
    """`sign`: a masked sample loses a copy where its g is above 0 and gains one where it is below (the paper's rule);
    `exchange`: those of the lowest g gain a copy and as many of the highest lose one, so that the total stays;
    `confident`: the same by what g is taken for (`beliefs`), as far as the intervals of the two do not meet."""
    p: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the pool that is masked in (scored and moved) each round."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """`exchange`, and at most in `confident`: share of the masked samples raised, and lowered."""
    z: NotNegative = 1.0
    """`confident`: standard deviations on either side of g that an interval has."""
    momentum: Share = 0.0
    """Weight of earlier rounds' metagradients in the step: 0 is the paper's rule, 1 sums all rounds alike."""
    scale: Literal["none", "sample", "count"] = "none"
    """`sample`: divide a sample's summed g by the root of its sum of squares, so that steady ones move first. `count`:
    before summing, divide g by the median size among samples of the same count, without outliers."""
    groups: Annotated[tuple[str, ...], Distinct] = ()
    """What tells groups of samples: columns of the pool (its source, domain, text, shard), clusters of embeddings
    (`image_cluster`, `text_cluster`), or several of them crossed (`image_cluster*text_cluster`). The step then acts on
    the mean of g over rounds, shrunk towards those of the sample's groups by what is measured of the noise."""
    whole_groups: bool = False
    """Take nothing of a sample's own g beside what its groups (and the model, if `learned`) say: whole groups move."""
    target_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the target's pictures or questions that a round lowers, drawn anew each round: what few hundred pictures
    want of the pool by chance is then another thing each round."""
    learned: bool = False
    """Shrink g, as by `groups`, towards what a model expects of each sample that was fitted to others: ridge regression
    on embeddings, losses and cosines by round 0's model and on the pool's numbers. Costs two passes over the pool, once
    a run."""
    diversity: NotNegative = 0.0
    """What the step takes the r-th best sample of a group for is its g divided by r to this power, where it helps: 0.5,
    say, so that the tenth near-copy is worth a third of the first; 0: samples are taken one by one."""
    diverse_by: str = "image_cluster"
    """The grouping that this goes by, as in `groups`."""
    max_count: Whole | None = None
    """Ceiling of a sample's count; None: no ceiling."""
    blends: tuple[str, ...] = ()
    """Filters of the comparison, such as `loss_filter`. For each one training more is done after the rounds, on as many
    samples as the last round kept, those ranked first by g and the filter together, which goes by the models of all
    rounds. Each adds its filter to those before it: the same one again has twice the weight."""
    final_trainings: Annotated[int, Field(ge=1, le=100)] = 3
    """With `blends`: trainings afresh of each blend and of the round that `select` chooses among the others; the mean
    of what the held-out part says of them chooses between these."""
    select: Selection = "heldout_loss"
    """What chooses the round; `heldout_accuracy_1se`: the last round within one standard error of the best."""
    seed: Seed = 0
    """Seed of the rounds: initial weights, order of the data, and who is masked in."""

    @model_validator(mode="after")
    def _blends_have_rounds(self) -> DescentOptions:
        if self.blends and not self.rounds:
            raise ValueError("blends need the g of a round: without rounds, name the filters in comparison.subsets")
        return self

    @model_validator(mode="after")
    def _whole_groups_are_some(self) -> DescentOptions:
        if self.whole_groups and not self.groups and not self.learned:
            raise ValueError("whole_groups needs groups, or learned = true: nothing else would tell samples apart")
        return self

    @field_validator("groups")
    @classmethod
    def _one_spelling(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("*".join(part.strip() for part in grouping.split("*")) for grouping in groups)

    @property
    def trained_rounds(self) -> int:
        """Rounds that are trained: those that differentiate, one for the last counts, and one a blend; 0: none."""
        return self.rounds + 1 + len(self.blends) if self.rounds else 0

    def trainings_of(self, round: int) -> int:
        """Trainings of a round: those that do not differentiate have one."""
        return self.replicates if round < self.rounds else 1

    @property
    def acts_on_beliefs(self) -> bool:
        """Whether the step acts on what g is taken for, not on its sum over the rounds."""
        return bool(self.groups) or self.learned or self.rule == "confident"

    @property
    def exchanges(self) -> bool:
        """Whether as many copies are gained as lost."""
        return self.rule != "sign"

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


BASELINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class TrialOptions(Section):
    """The trainings that put the chosen subset beside its rivals, at equal samples seen."""

    built_in: ClassVar[tuple[str, ...]] = ()
    """Names that `subsets` takes; none are told of a kind that says none."""
    subsets: tuple[str, ...]
    """Built-in subsets: `everything`, as many samples at random, filters' choices, what descent chose (`mgd`), and the
    right samples where the pool has a column `truth_clean` (`oracle`). Those but `everything`, `mgd` and `oracle` have
    as many distinct samples as the chosen one. `FILTER@GROUPING`: by the means of a filter's scores over groups, as
    `descent.groups` names them."""
    rivals: dict[str, str] = Field(default_factory=dict)
    """Further rivals, by names of your own, as `mgd subset` takes them (`clip_score(fraction=0.3)`, or the path of a
    subset, relative to the catalog). Each keeps its own samples and copies, and sees as many in training as all do."""
    seeds: Annotated[tuple[Seed, ...], Filled, Distinct] = (101, 102, 103)
    """Seeds of their trainings: initial weights and order of the data."""

    @model_validator(mode="after")
    def _subsets_are_told_apart(self) -> TrialOptions:
        if not self.compared:
            raise ValueError("no subset is to be trained, so there would be no result: name one in subsets, say 'mgd'")
        distinct(self.subsets)
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        """Every subset that is trained, once each: the built-in ones, then the catalog's rivals."""
        return tuple(dict.fromkeys((*self.subsets, *self.rivals)))

    @field_validator("subsets", mode="before")
    @classmethod
    def _no_old_names(cls, named: Any) -> Any:
        for name in named if isinstance(named, list | tuple) else ():
            if isinstance(name, str) and (old := filter_and_column(name)[0]) in RENAMED:
                raise ValueError(
                    f"'{old}' is now '{RENAMED[old]}', since it ranks by the cosine of round 0's own model; for the "
                    'scores that the pool brought along, add rivals = { clip = "clip_score(fraction=0.3)" }'
                )
        return named

    @field_validator("subsets")
    @classmethod
    def _subsets_are_there(cls, named: tuple[str, ...]) -> tuple[str, ...]:
        for name in named if cls.built_in else ():
            check_subset(name, cls.built_in)
        return tuple(spelt(name) for name in named)

    @field_validator("rivals")
    @classmethod
    def _baselines_can_be_read(cls, rivals: dict[str, str]) -> dict[str, str]:
        for name in rivals:
            if name in TAKEN:
                raise ValueError(f"a rival cannot be called '{name}', which has a meaning here; give it another name")
            if not BASELINE_NAME.fullmatch(name):
                raise ValueError(f"a rival's name is up to 64 letters, digits, and _ . - after the first; got {name!r}")
        return {name: _parsed(name, text) for name, text in rivals.items()}


def _parsed(rival: str, text: str) -> str:
    try:
        return str(parse(text))
    except ExpressionError as error:
        raise ValueError(f"rival '{rival}': {error}") from None


def as_now(catalog: dict[str, Any]) -> dict[str, Any]:
    """A catalog as an earlier version recorded it, in the words of this one."""
    trials, descent = dict(catalog.get("comparison", {})), dict(catalog.get("descent", {}))
    if "subsets" in trials:
        trials["subsets"] = [RENAMED.get(name, name) for name in trials["subsets"]]
    if "memory" in descent:
        descent["momentum"] = descent.pop("memory")
    return catalog | {key: part for key, part in (("comparison", trials), ("descent", descent)) if key in catalog}


RunnerKind = Literal["threads", "processes", "ray", "dask"]
CLUSTERED = ("ray", "dask")


class RunnerTable(Section):
    """What carries the flow's tasks, in full; `runner = "ray"` in `[runtime]` says its kind alone."""

    kind: RunnerKind
    """Threads or processes of this machine, or Ray or Dask, for clusters."""
    workers: Workers | None = None
    """Tasks at a time that are started here; None: `runtime.workers`. A cluster that is joined takes what it has room
    for."""
    address: Annotated[str, Filled] | None = None
    """Of a Ray or Dask cluster that is joined, say `"tcp://10.0.0.1:8786"`; None: one is started on this machine."""
    num_cpus: Positive = 1.0
    """Ray: cores that a task takes."""
    num_gpus: NotNegative = 0.0
    """GPUs that a task takes: Ray shows it only those; Dask counts the resource `GPU` that its workers declare."""
    loopback: bool = True
    """What is started here listens on 127.0.0.1 only; false: wherever Ray and Dask themselves would."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `ray.init`, or of Dask's cluster (its client, where one is joined), which go before ours."""

    @model_validator(mode="after")
    def _cluster_has_clusters_options(self) -> Self:
        said = [
            key for key in ("address", "num_cpus", "num_gpus", "loopback", "options") if key in self.model_fields_set
        ]
        if said and self.kind not in CLUSTERED:
            raise ValueError(f"{', '.join(said)}: of Ray and Dask only, and the kind is '{self.kind}'; remove it")
        return self


class RuntimeOptions(DeviceSection):
    """Where it runs."""

    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processes that train a round together, each its rows of a batch and its slice of every state: on CPUs, each with
    `threads` threads; on GPUs, the first so many of `devices`. Part of the run's identity: more of them change results
    by rounding, and the same number gives the same bytes. See docs/scale.md."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the encoders' products: `tf32` for NVIDIA GPUs; `bfloat16` moves g visibly (see
    benchmarks/results/precision.md). Parameters, moments and all sums stay in float32."""
    runner: RunnerTable = RunnerTable(kind="threads")
    """What carries the flow's tasks: a kind alone, or `[runtime.runner]`."""
    workers: Workers | None = None
    """Tasks of it at a time, of which those that train take a device each; None: one for each device."""
    readers: Workers = 2
    """Threads that read and decode the next batches of a training while a step runs."""
    decoded_disk: Annotated[ByteSize, Field(ge=0)] | None = None
    """Most bytes of decoded pictures kept in a file beside the pool, say "100GiB". A pool that needs more is decoded
    batch by batch; None: no limit."""
    batch_cache: Annotated[ByteSize, Field(ge=0)] = ByteSize(0)
    """Bytes of decoded batches kept in main memory for replays, those needed soonest; for pools that are not kept
    decoded. None of these four changes a result."""

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> Self:
        there = len(self.slots)
        if self.ranks > 1 and kind_of_device(self.device) != "cpu" and self.devices != "all" and there < self.ranks:
            raise ValueError(f"{self.ranks} ranks need as many devices, and {there} are named: add some, or 'all'")
        return self

    @field_validator("runner", mode="before")
    @classmethod
    def _kind_alone(cls, said: Any) -> Any:
        return {"kind": said} if isinstance(said, str) else said

    @field_serializer("runner")
    def _as_said(self, runner: RunnerTable) -> Any:
        return (
            runner.kind if runner.model_fields_set == {"kind"} else runner.model_dump(mode="json", exclude_unset=True)
        )
