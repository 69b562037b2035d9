"""Options of sharding, in img2dataset's words: what is done with each picture, and where its caption and uid stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from mgd_core.errors import UserError
from tasks.files.option_types import Distinct, Filled, FromZero, Positive, Section, Whole

VERSION = 1
"""Changes whenever equal sources and options would give other bytes than before."""
Captions = Literal["auto", "sidecars", "folders", "names"]
Evaluation = Literal["", "classification", "retrieval"]
"""Whether an evaluation set in clip_benchmark's form is written, and of which kind, instead of a pool's shards."""


class OptionsError(UserError, ValueError):
    """Options that do not fit, or not each other."""


class ShardOptions(Section):
    """How pictures become shards; every one of these changes bytes."""

    image_size: Whole | None = None
    """Pixels of the side that `resize_mode` goes by; needed by all modes but `no`."""
    resize_mode: Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"] = "no"
    """`keep_ratio`: the shorter side becomes image_size; `keep_ratio_largest`: the longer one; `center_crop`: the
    shorter one, and a square is cut out; `border`: the longer one, and white makes it a square."""
    resize_only_if_bigger: bool = True
    """Smaller pictures stay as they are."""
    encode_format: Literal["jpg", "png", "webp"] | None = None
    """What pictures are written as; None: as they came where they are not resized, else as jpg."""
    encode_quality: Annotated[int, Field(ge=0, le=100)] | None = None
    """Of jpg and webp (0 to 100), or compression of png (0 to 9); None: 95, 6 for png. Named, every picture is written
    anew; not named, those that already are what they should be keep their bytes."""
    min_image_size: FromZero = 0
    """Pictures whose shorter side has fewer pixels fail."""
    max_aspect_ratio: Positive | None = None
    """Pictures whose longer side is more than so many times the shorter one fail; None: none does."""
    captions: Captions = "auto"
    """Where a folder's captions are: in `sidecars` (.txt, .caption, .json of the picture's name), in the names of its
    `folders` (classes), or of the pictures themselves (`names`). `auto`: sidecars where there are any, else folders."""
    templates: Annotated[tuple[str, ...], Filled, Distinct] = ("a photo of a {}",)
    """Sentences around a class, `{}` where it stands; of several each picture gets one, by a hash of its name."""
    url_col: str | None = None
    """Column of a listing that has the pictures' paths or addresses; None: guessed by its name, and told."""
    image_col: str | None = None
    """Column of a Parquet file that has the pictures' bytes; None: guessed, and told."""
    caption_col: str | None = None
    """Column that has the captions; None: guessed by its name, and told."""
    uid_col: str | None = None
    """Column that has the uids (up to 32 hex digits); None: `uid` where there is one, else a uid is the digest of
    picture and caption."""

    @field_validator("templates")
    @classmethod
    def _templates_have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if "{}" not in template:
                raise ValueError(f"{template!r} has no {{}} where the class goes, so all classes would read the same")
        return templates

    @model_validator(mode="after")
    def _size_and_mode_go_together(self) -> Self:
        if self.resize_mode != "no" and self.image_size is None:
            raise ValueError(f"resize_mode '{self.resize_mode}' needs an image_size, say 256")
        if self.resize_mode == "no" and self.image_size is not None:
            raise ValueError("image_size does nothing with resize_mode 'no'; name a mode, say keep_ratio")
        if self.encode_format == "png" and (self.encode_quality or 0) > 9:
            raise ValueError(f"encode_quality of png is its compression, 0 to 9, not {self.encode_quality}")
        return self

    def identity(self) -> list[Any]:
        """What bytes are a function of, beside the sources."""
        return [VERSION, self.model_dump(mode="json", exclude={"captions", "url_col", "image_col"})]


def read_options(options: Mapping[str, Any] | None, evaluation: Evaluation = "") -> ShardOptions:
    """Options as a form or a command gives them; raises OptionsError with what is wrong. Captions of an evaluation set
    for classification are the classes themselves."""
    classes = {"templates": ("{}",)} if evaluation == "classification" else {}
    try:
        return ShardOptions(**{**classes, **(options or {})})
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc'][:1]))}: {one['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            for one in error.errors()
        )
        raise OptionsError(f"options of sharding: {told}") from None
