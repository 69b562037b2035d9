"""The study catalog: one TOML file that says everything about a study of a classifier's training.

A study asks of one training recipe on labelled pictures what a curation does not: whom its outputs are owed to
(`attribution`), which learning rates would serve it better (`schedule`), how little it takes to spoil it (`poison`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.catalog_files import CATALOGS, CatalogError, find_file, read_file
from tasks.local_files import absolute
from tasks.recipe_options import LearnerOptions, Positive, Section, Share, Whole

STUDIES = CATALOGS / "studies"


class DataOptions(Section):
    """Labelled pictures of a tile sheet."""

    source: str
    """A sheet directory (tiles.png, table.parquet); relative to the catalog file."""
    how_to_get: str = ""
    """What to do if the source is not there."""
    labels: str = "label"
    """Column that names a picture's class."""
    where: str | None = None
    """Column of true and false: pictures with false are left out; null counts as true."""
    train: str = "pool"
    target: str = "target"
    """Split that outputs are taken of, and that the descent lowers or raises the loss of."""
    test: str = "test"
    """Split that is only reported."""
    examples: Whole | None = None
    """Pictures of the training split that are taken, from its first on; None: all."""
    target_examples: Whole | None = None
    test_examples: Whole | None = None
    side: Whole | None = None
    """Pictures are averaged to so many pixels a side; None: as they are."""


class StudyModelOptions(Section):
    """The classifier."""

    kind: Literal["mlp", "resnet9", "vit"] = "mlp"
    width: Whole = 64
    layers: Whole = 1
    """Hidden layers of the MLP; blocks of the ViT."""
    norm: Literal["before", "after", "none"] = "before"
    """ResNet-9: normalisation before the activation, after it, or nowhere. MLP: layer norm unless `none`."""
    pool: Literal["average", "max"] = "average"
    logit_scale: Positive = 1.0
    heads: Whole = 4
    patch: Whole = 4
    qk_norm: bool = True
    dropout: Share = 0.0
    """Must stay 0: a training that drops at random has no metagradient."""

    @model_validator(mode="after")
    def _no_dropout(self) -> StudyModelOptions:
        if self.dropout > 0:
            raise ValueError(
                f"dropout = {self.dropout:g}: activations dropped at random destroy the metagradient (a replayed step "
                "differs, and predictions lose all rank). Set it to 0"
            )
        return self


class AttributionOptions(Section):
    """Which outputs are attributed, and how that is checked."""

    outputs: Literal["class", "example"] = "class"
    """One output for each class, the mean over its pictures of the target split; or one for each picture."""
    measure: Literal["loss", "margin"] = "loss"
    """Cross-entropy, nats; or the log odds of the right class."""
    together: Whole = 64
    """Outputs that share a reverse sweep; more is faster and takes more memory."""
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.01, 0.05, 0.2, 0.5)
    """Shares of the training pictures that `--validate` drops at random."""
    retrainings: Annotated[int, Field(ge=3)] = 50
    """Random subsets of each share."""
    draws: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the bootstrap."""
    seed: Annotated[int, Field(ge=0)] = 0


class ScheduleOptions(Section):
    """How the learning rates are descended on."""

    points: Annotated[int, Field(ge=2)] | None = None
    """Control points of a piecewise linear schedule; None: the rate of each step by itself."""
    start: Positive = 1e-3
    """The flat schedule that it begins from."""
    steps: Whole = 50
    """Metagradient steps at most."""
    step_size: Positive = 0.1
    """First step, as a share of the schedule's mean rate; halved where a step does not help."""
    grid_peaks: tuple[Positive, ...] = ()
    grid_warmups: tuple[Share, ...] = ()
    """The grid of one-cycles beside it: peak rates, and shares of the training at which they are reached."""
    grid_ends: tuple[Share, ...] = (0.0,)
    """Last rates of the one-cycles, as shares of the peak."""


class PoisonOptions(Section):
    """How fragile the training set is: a share of it is changed to raise the target loss."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.025
    steps: Whole = 20
    step_size: Positive = 0.1
    """Largest change of a pixel in a step, as a share of the range; that of a label's probability is the same."""
    decay: Literal["none", "linear"] = "none"
    """Whether later steps are as long as the first, or ever shorter, down to zero."""
    momentum: Share = 0.0
    """How much of the motion so far a step keeps, each metagradient counting for as much as another."""
    target_batch: Whole | None = None
    """Target pictures whose loss a step raises, others each time: steps cost less. None: all of them at every step."""
    labels: bool = True
    """Whether labels are changed as well as pixels."""
    cancel_budgets: tuple[Positive, ...] = (0.1, 0.3, 1.0)
    """Baseline of gradient cancelling: distances of its target parameters from the clean ones, as shares of their norm;
    the one that costs most accuracy on the target split is taken."""
    cancel_steps: Whole = 100
    plain_learning_rate: Positive = 0.05
    """Peak rate of the plain recipe, momentum SGD, to which poisons are transferred."""
    seed: Annotated[int, Field(ge=0)] = 0


class StudyRuntimeOptions(Section):
    """Where it runs."""

    device: str = "cpu"
    threads: Whole = 2
    """CPU threads of a training; part of the study's identity, since it changes results bit for bit."""
    runner: Literal["threads", "processes"] = "threads"
    workers: Whole = 1


class Study(Section):
    """One study."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    description: str = ""
    data: DataOptions
    model: StudyModelOptions = StudyModelOptions()
    learner: LearnerOptions
    attribution: AttributionOptions = AttributionOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    poison: PoisonOptions = PoisonOptions()
    runtime: StudyRuntimeOptions = StudyRuntimeOptions()

    @model_validator(mode="after")
    def _points_fit(self) -> Study:
        points, steps = self.schedule.points, self.learner.steps
        if points is not None and points > steps:
            raise ValueError(
                f"schedule.points = {points}: more control points than the training's {steps} steps cannot be told "
                f"apart. Take at most {steps}, or leave it out to move the rate of each step"
            )
        return self


def find_study(name: str) -> Path:
    """Path of a study catalog given as a file, or by the name of one that travels with the package.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    return find_file("study", name, STUDIES)


def load_study(path: Path) -> Study:
    """Read and check a study catalog; its source becomes absolute.

    Raises:
        CatalogError: with every problem found, and the nearest valid key for a typo; or the source is not there.
    """
    study = read_file(path, Study)
    source = Path(absolute(study.data.source, path.parent))
    if not source.exists():
        told = f"study '{study.name}': data.source {source} is not there. {study.data.how_to_get}"
        raise CatalogError(told.rstrip())
    return study.model_copy(update={"data": study.data.model_copy(update={"source": str(source)})})
