"""A zero-shot task of a catalog: a split of a sheet, or a part of an evaluation set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from tasks.catalog.target_sections import TaskSection
from tasks.files.option_types import Distinct, Filled, Place, Section, Seed, Share, Whole

Part = Literal["target", "heldout", "test"]
ALL = "all"
"""The split of an evaluation set that is not parted."""
PLACES = ("{}", "{c}")
"""Where a template takes a class in: as `str.format` has it, or as clip_benchmark's files do."""


class PartsOptions(Section):
    """How the samples of evaluation sets are parted, by a keyed hash of their pictures: equal pictures are in one part,
    whatever the set."""

    target: Share = 0.4
    """Share of what the descent lowers."""
    heldout: Share = 0.2
    """Share of what chooses the round."""
    test: Share = 0.4
    """Share of what only the comparison sees; what the three leave is not used."""
    seed: Seed = 0
    """Seed of the hash: another one, another parting."""

    @model_validator(mode="after")
    def _shares_fit(self) -> PartsOptions:
        total = self.target + self.heldout + self.test
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of target, heldout and test are {total:g} together; they are parts of one")
        return self


class ZeroShotSection(TaskSection):
    """What is asked of a sheet or of an evaluation set, whichever of its pictures are shown."""

    source: Place
    classes: str | None = None
    """Column that names the class of an image (sheets, which need it)."""
    texts: str | None = None
    """Column whose distinct values describe a class (say, the names of its members); None: the class name itself."""
    texts_splits: Annotated[tuple[str, ...], Filled] | None = None
    """Splits whose rows define the classes and their texts; None: all but the pool."""
    max_texts: Whole = 8
    """Texts taken of each class at most (of a set: sentences, evenly chosen; of many tasks a retrieval set: the first
    captions of each picture)."""
    templates: Annotated[tuple[str, ...], Filled, Distinct] | None = None
    """Sentences around a class text, `{}` (or `{c}`) where it stands; features are averaged over texts and templates.
    None: those in a set's own file; for sheets "a photo of a {}"."""
    folder: str = "test"
    """Folder of a set that is parted: `test`, or `train` where there is one."""
    max_images: Whole | None = None
    """Images of a set's part at most: those of the lowest hash; None: all."""

    @field_validator("templates")
    @classmethod
    def _templates_have_a_place(cls, templates: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for template in templates or ():
            left = in_template(template, "")
            if left == template:
                raise ValueError(f"{template!r} has no {{}} where the class goes, so all classes would read the same")
            if set(left) & set("{}"):
                raise ValueError(f"{template!r} has a brace too many: the class goes where {{}} stands")
        return templates

    def idle(self, fields: tuple[str, ...]) -> list[str]:
        """Those of some fields that are not what they are when nothing is said."""
        return [name for name in fields if getattr(self, name) != ZeroShotSection.model_fields[name].default]


class TaskOptions(ZeroShotSection):
    """A zero-shot task: images of one split of a sheet, classes named by a column; or of one part of an evaluation set
    in clip_benchmark's form, its classes and sentences in its own files."""

    source: Place
    """Directory of a sheet; or path or URL of a set (`NAME/test/0.tar`, ...), where each picture of a retrieval set is
    a class of its own that its captions describe."""
    split: str
    """Split of a sheet; of a set the part: target, heldout or test, or `all` of it."""

    def clash(self, other: TaskOptions) -> str:
        """What both share: the same pictures, or one all of what the other has a part of."""
        if (self.source, self.folder) != (other.source, other.folder):
            return ""
        if self.split == other.split:
            same = f"are both split '{self.split}' of {self.source}: what the descent lowers or chooses by would be "
            return same + "tested on itself. Name another split"
        if ALL not in (self.split, other.split):
            return ""
        return (
            f"are splits '{other.split}' and '{self.split}' of {self.source}: '{ALL}' is all of it, so no other role "
            "can have a part. Name a split, or another source"
        )


def in_template(template: str, text: str) -> str:
    """A template with a class text in its place."""
    return text.join(part for piece in template.split(PLACES[0]) for part in piece.split(PLACES[1]))
