"""What the options of every catalog are made of: sections that refuse unknown keys, and kinds of numbers and places.

Bounds are those within which a value means something: a number that is read into float32 must be one there, a seed must
fit torch's generator, and nothing that is counted can be so large that only memory would say no.
"""

from __future__ import annotations

from collections.abc import Hashable, Sized
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationInfo, field_validator

LEAST, MOST = 1.2e-38, 3.4e38
"""Of float32, in which parameters and moments are kept: below it is 0, above it infinite."""
LARGEST = 2**53
"""Of whole numbers; also of seeds, which are multiplied by 1,000 for torch's generator."""


class Strict(BaseModel):
    """A record that nobody changes; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Section(Strict):
    """A table of a catalog: unknown keys are refused, and infinities, NaN, and true or false in a number's place."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in given):
            field = cls.model_fields[str(info.field_name)]
            if not _mentions(field.annotation, (bool, Any)):
                raise ValueError("true and false have no meaning here")
        return value


def _mentions(annotation: Any, wanted: tuple[Any, ...]) -> bool:
    return annotation in wanted or any(_mentions(part, wanted) for part in get_args(annotation))


def _in_float32(value: float) -> float:
    if value and not LEAST <= abs(value) <= MOST:
        raise ValueError(f"float32 has no such number; it goes from {LEAST:g} to {MOST:g}")
    return value


Item = TypeVar("Item", bound=Hashable)


def distinct(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items; raises ValueError where one stands among them twice."""
    doubled = [item for item, before in zip(items, range(len(items)), strict=True) if item in items[:before]]
    if doubled:
        raise ValueError(f"{doubled[0]!r} stands there twice")
    return items


def _filled(items: Sized) -> Sized:
    if not len(items):
        raise ValueError("it is empty; name something, or leave the key out where it may be left out")
    return items


def _printable_place(place: str) -> str:
    if not place.strip() or "\0" in place:
        raise ValueError("an empty path, or one with a NUL, names nothing")
    return place


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_in_float32)]
NotNegative = Annotated[float, Field(ge=0), AfterValidator(_in_float32)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of a running mean: at 1 it would never take anything in."""
Whole = Annotated[int, Field(ge=1, le=LARGEST)]
FromZero = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
Workers = Annotated[int, Field(ge=1, le=1024)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Place = Annotated[str, AfterValidator(_printable_place)]
Filled = AfterValidator(_filled)
Distinct = AfterValidator(distinct)
