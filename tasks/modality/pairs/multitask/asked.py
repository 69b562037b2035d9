"""What tasks ask of pictures, apart from any model: classes, captions, several labels; and many of them together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.models.clip import ClipObjective
from mgd_core.models.multitask import MultiTask
from mgd_core.models.picture_tasks import ClassTask, LabelsTask, PictureTask, RetrievalTask
from mgd_core.models.zeroshot import Temperature
from tasks.catalog.files import CatalogError
from tasks.modality.pairs.vocabulary import Vocabulary
from tasks.modality.pairs.zero_shot import TaskData, class_tokens


@dataclass(frozen=True)
class Asked(ABC):
    """Images (n, 3, S, S) uint8; what each is known by, wherever it stands; its place (file and member); and a sentence
    on what was read."""

    images: Tensor
    identities: list[str]
    places: list[str]
    told: str

    @property
    @abstractmethod
    def texts(self) -> list[str]:
        """All texts, in the order of the tokens."""

    @abstractmethod
    def bound(self, vocabulary: Vocabulary) -> PictureTask:
        """The task, in tokens."""

    def only(self, kept: Sequence[int]) -> Self:
        """The same with these of its pictures."""
        at = list(kept)
        identities, places = [self.identities[i] for i in at], [self.places[i] for i in at]
        return replace(self, images=self.images[at], identities=identities, places=places)

    def fault(self) -> str:
        """Why nothing can be asked, if so."""
        return "" if len(self) else "it has no picture"

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class AskedClasses(Asked):
    """Each picture is of one class: ``labels`` (n,), and of each class its texts, the same number."""

    labels: Tensor
    class_texts: list[list[str]]
    metric: str

    @staticmethod
    def of(data: TaskData, metric: str) -> AskedClasses:
        """A zero-shot task, measured so."""
        return AskedClasses(data.images, data.identities, data.places, data.told, data.labels, data.class_texts, metric)

    @property
    def texts(self) -> list[str]:
        """Class after class."""
        return [text for own in self.class_texts for text in own]

    def bound(self, vocabulary: Vocabulary) -> ClassTask:
        """Classification."""
        tokens = class_tokens(self.class_texts, vocabulary)
        return ClassTask.of(self.images, tokens.flatten(0, 1), self.labels, tokens.shape[1], self.metric)

    def only(self, kept: Sequence[int]) -> Self:
        """The same with these of its pictures; all classes stay."""
        return replace(super().only(kept), labels=self.labels[list(kept)])


@dataclass(frozen=True)
class AskedCaptions(Asked):
    """Each picture has ``captions``, one at least."""

    captions: list[list[str]]

    @property
    def texts(self) -> list[str]:
        """Picture after picture."""
        return [text for own in self.captions for text in own]

    def bound(self, vocabulary: Vocabulary) -> RetrievalTask:
        """Retrieval, both ways."""
        sizes = torch.tensor([len(own) for own in self.captions])
        owners = torch.arange(len(self)).repeat_interleave(sizes)
        return RetrievalTask.of(self.images, vocabulary.known_tokens(self.texts)[0], owners)

    def only(self, kept: Sequence[int]) -> Self:
        """The same with these of its pictures and their captions."""
        return replace(super().only(kept), captions=[self.captions[i] for i in kept])

    def fault(self) -> str:
        """A single picture has no other that could be taken for it."""
        return "" if len(self) > 1 else f"retrieval needs two pictures at least, it has {len(self)}"


@dataclass(frozen=True)
class AskedLabels(Asked):
    """Each picture may be of several classes: ``truth`` (n, classes), bool, and of each class its texts."""

    truth: Tensor
    class_texts: list[list[str]]

    @property
    def texts(self) -> list[str]:
        """Class after class."""
        return [text for own in self.class_texts for text in own]

    def bound(self, vocabulary: Vocabulary) -> LabelsTask:
        """Labels."""
        tokens = class_tokens(self.class_texts, vocabulary)
        return LabelsTask.of(self.images, tokens.flatten(0, 1), self.truth, tokens.shape[1])

    def only(self, kept: Sequence[int]) -> Self:
        """The same with these of its pictures; all classes stay."""
        return replace(super().only(kept), truth=self.truth[list(kept)])

    def fault(self) -> str:
        """A class asks for its pictures among others."""
        asked = bool((self.truth.any(0) & ~self.truth.all(0)).any()) if len(self) else False
        return "" if asked else "no class has both pictures of it and others"


@dataclass(frozen=True)
class ManyAsked:
    """Tasks that are lowered, or chosen by, or tested on, together; their pictures one task after the other."""

    tasks: Mapping[str, Asked]
    weights: Mapping[str, float]
    normalised: bool
    """Whether their losses are in units of what nothing but chance gives, until others are known."""

    @property
    def identities(self) -> list[str]:
        """What each picture is known by."""
        return [one for task in self.tasks.values() for one in task.identities]

    @property
    def places(self) -> list[str]:
        """Where each picture lies."""
        return [one for task in self.tasks.values() for one in task.places]

    @property
    def texts(self) -> list[str]:
        """All texts."""
        return [text for task in self.tasks.values() for text in task.texts]

    @property
    def told(self) -> str:
        """What was read of each."""
        return "; ".join(f"{name}: {task.told}" for name, task in self.tasks.items())

    @property
    def sizes(self) -> list[int]:
        """Pictures of each."""
        return [len(task) for task in self.tasks.values()]

    @property
    def effective(self) -> float:
        """Pictures of one task whose accuracy would be as sure as the weighted mean of these, all equally hard."""
        spread = sum(self.weights[name] ** 2 / len(task) for name, task in self.tasks.items())
        return float(sum(self.weights.values()) ** 2 / spread)

    def only(self, kept: Sequence[int]) -> ManyAsked:
        """The same with these of the pictures.

        Raises:
            CatalogError: too little remains of a task for its question.
        """
        wanted, first, left = set(kept), 0, dict[str, Asked]()
        for name, task in self.tasks.items():
            left[name] = task.only([i for i in range(len(task)) if first + i in wanted])
            first += len(task)
        return replace(self, tasks=left).checked()

    def checked(self) -> ManyAsked:
        """Itself; raises CatalogError where a task has nothing to ask."""
        for name, task in self.tasks.items():
            if fault := task.fault():
                raise CatalogError(
                    f"task '{name}' ({task.told}): {fault}. Give it more pictures (targets.parts, max_images, "
                    "descent.target_share), or take it out"
                )
        return self

    def bind(
        self, objective: ClipObjective, layout: ParameterLayout, vocabulary: Vocabulary, temperature: Temperature
    ) -> MultiTask:
        """The tasks for a model. Pictures stay where they are; batches of them go to the model."""
        bound = {name: task.bound(vocabulary) for name, task in self.tasks.items()}
        units = {name: task.chance for name, task in bound.items()} if self.normalised else None
        return MultiTask(objective, layout, bound, self.weights, temperature, units)

    def __len__(self) -> int:
        return sum(self.sizes)
