"""The study catalog: one TOML file that says everything about a study of a classifier's training.

A study asks of one training recipe on labelled pictures what a curation does not: whom its outputs are owed to
(`attribution`), which learning rates would serve it better (`schedule`), how little it takes to spoil it (`poison`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tasks.catalog.device_options import DeviceSection
from tasks.catalog.files import CatalogError, read_file
from tasks.catalog.learner_options import LearnerOptions
from tasks.files.local_files import absolute
from tasks.files.option_types import (
    Decay,
    Distinct,
    Filled,
    Place,
    Positive,
    Section,
    Seed,
    Share,
    Steps,
    Whole,
    Workers,
)


class DataOptions(Section):
    """Labelled pictures of a tile sheet."""

    source: Place
    """A sheet directory (tiles.png, table.parquet); relative to the catalog file."""
    how_to_get: str = ""
    """What to do if the source is not there."""
    labels: str = "label"
    """Column that names a picture's class."""
    where: str | None = None
    """Column of true and false: pictures with false are left out; null counts as true."""
    train: str = "pool"
    """Split that is trained on."""
    target: str = "target"
    """Split that outputs are taken of, and that the descent lowers or raises the loss of."""
    test: str = "test"
    """Split that is only reported."""
    examples: Whole | None = None
    """Pictures of the training split that are taken, from its first on; None: all."""
    target_examples: Whole | None = None
    """The same of the target split."""
    test_examples: Whole | None = None
    """The same of the test split."""
    side: Whole | None = None
    """Pictures are averaged to so many pixels a side; None: as they are."""


class StudyModelOptions(Section):
    """The classifier."""

    kind: Literal["mlp", "resnet9", "vit"] = "mlp"
    """A multilayer perceptron, a ResNet-9 without batch norm, or a small vision transformer."""
    width: Whole = 64
    """Units of a hidden layer (MLP), channels of the first convolution (ResNet-9), width of the blocks (ViT)."""
    layers: Whole = 1
    """Hidden layers of the MLP; blocks of the ViT."""
    norm: Literal["before", "after", "none"] = "before"
    """ResNet-9: normalisation before the activation, after it, or nowhere. MLP: layer norm unless `none`."""
    pool: Literal["average", "max"] = "average"
    """ResNet-9: how its pictures are made smaller."""
    logit_scale: Positive = 1.0
    """What logits are multiplied by; smaller is smoother."""
    heads: Whole = 4
    """ViT: heads of the attention; divides `width`."""
    patch: Whole = 4
    """ViT: pixels of a patch's side; divides the pictures' side."""
    qk_norm: bool = True
    """ViT: layer norm of queries and keys."""
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
    shares: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Filled, Distinct] = (0.01, 0.05, 0.2, 0.5)
    """Shares of the training pictures that `--validate` drops at random."""
    retrainings: Annotated[int, Field(ge=3, le=10**6)] = 50
    """Random subsets of each share."""
    draws: Annotated[int, Field(ge=100, le=10**7)] = 1000
    """Resamples of the bootstrap."""
    seed: Seed = 0
    """Seed of the random subsets."""


class ScheduleOptions(Section):
    """How the learning rates are descended on."""

    points: Annotated[int, Field(ge=2, le=10**8)] | None = None
    """Control points of a piecewise linear schedule; None: the rate of each step by itself."""
    start: Positive = 1e-3
    """The flat schedule that it begins from."""
    steps: Steps = 50
    """Metagradient steps at most."""
    step_size: Positive = 0.1
    """First step, as a share of the schedule's mean rate; halved where a step does not help."""
    grid_peaks: tuple[Positive, ...] = ()
    """The grid of one-cycles beside it: peak rates."""
    grid_warmups: tuple[Share, ...] = ()
    """Shares of the training at which the peaks are reached."""
    grid_ends: tuple[Share, ...] = (0.0,)
    """Last rates of the one-cycles, as shares of the peak."""


class PoisonOptions(Section):
    """How fragile the training set is: a share of it is changed to raise the target loss."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.025
    """Share of the training pictures that is changed."""
    steps: Steps = 20
    """Metagradient steps."""
    step_size: Positive = 0.1
    """Largest change of a pixel in a step, as a share of the range; that of a label's probability is the same."""
    decay: Literal["none", "linear"] = "none"
    """Whether later steps are as long as the first, or ever shorter, down to zero."""
    momentum: Decay = 0.0
    """How much of the motion so far a step keeps, each metagradient counting for as much as another."""
    target_batch: Whole | None = None
    """Target pictures whose loss a step raises, others each time: steps cost less. None: all of them at every step."""
    labels: bool = True
    """Whether labels are changed as well as pixels."""
    cancel_budgets: Annotated[tuple[Positive, ...], Filled] = (0.1, 0.3, 1.0)
    """Baseline of gradient cancelling: distances of its target parameters from the clean ones, as shares of their norm;
    the one that costs most accuracy on the target split is taken."""
    cancel_steps: Steps = 100
    """Steps of that baseline's own descent."""
    plain_learning_rate: Positive = 0.05
    """Peak rate of the plain recipe, momentum SGD, to which poisons are transferred."""
    seed: Seed = 0
    """Seed of who is changed, and of the random baselines."""


class StudyRuntimeOptions(DeviceSection):
    """Where it runs."""

    runner: Literal["threads", "processes"] = "threads"
    """What carries the flow's tasks."""
    workers: Workers | None = None
    """Tasks of it at a time; None: one for each device."""
    precision: ClassVar[str] = "float32"


class Study(Section):
    """One study."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]
    """What the study's directory is called: small letters, digits, - and _."""
    description: str = ""
    """A sentence for reports; changes nothing."""
    data: DataOptions
    model: StudyModelOptions = StudyModelOptions()
    learner: LearnerOptions
    attribution: AttributionOptions = AttributionOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    poison: PoisonOptions = PoisonOptions()
    runtime: StudyRuntimeOptions = StudyRuntimeOptions()

    @property
    def kind(self) -> str:
        """The key of its modality."""
        return self.model.kind

    @model_validator(mode="after")
    def _points_fit(self) -> Study:
        points, steps = self.schedule.points, self.learner.steps
        if points is not None and points > steps:
            raise ValueError(
                f"schedule.points = {points}: more control points than the training's {steps} steps cannot be told "
                f"apart. Take at most {steps}, or leave it out to move the rate of each step"
            )
        return self


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
