"""What a catalog says about smoothness: the bar, how it is measured, and the menu of an ablation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from tasks.files.option_types import FromZero, NotNegative, Positive, Section, Whole


class MenuOptions(Section):
    """Other values for the knobs of the recipe; an ablation turns one at a time."""

    eps_root: tuple[NotNegative, ...] = ()
    """Values of learner.eps_root."""
    batch: tuple[Whole, ...] = ()
    """Values of learner.batch, at the same number of steps."""
    learning_rate: tuple[Positive, ...] = ()
    """Values of learner.learning_rate."""
    warmup: tuple[FromZero, ...] = ()
    """Values of learner.warmup, steps."""
    window_start: tuple[FromZero, ...] = ()
    """Values of descent.window_start: the first differentiated step, from which on the weights are moved."""
    logit_scale: tuple[Positive, ...] = ()
    """What similarities are multiplied by at the first step (open_clip's default: 14.3)."""
    width: tuple[Positive, ...] = ()
    """Factors on the widths that the model's config names; the number of heads follows."""
    model: dict[str, tuple[Any, ...]] = Field(default={})
    """Values for keys of the model's config, such as "text_cfg.qk_norm" or "vision_cfg.pool_type"."""


class SmoothnessOptions(Section):
    """How smooth the recipe has to be, and how that is measured; changes no result of a curation that goes on."""

    bar: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least mean metasmoothness (-1 to 1) with which a curation begins; None: it is not asked."""
    directions: Annotated[int, Field(ge=2, le=10_000)] = 2
    """Random directions of example weights; two trainings each, and one for all."""
    h: Positive = 0.1
    """Step along a direction, whose elements are N(0, 1): weights are 1, 1 + h v and 1 + 2 h v."""
    lds_subsets: FromZero = 0
    """Random subsets without which each recipe is trained to see what its metagradient predicts (LDS); 0: not asked."""
    lds_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the samples in each of them."""
    menu: MenuOptions = MenuOptions()
    """What `mgd smoothness --sweep` tries."""

    @field_validator("lds_subsets")
    @classmethod
    def _enough_to_rank(cls, number: int) -> int:
        if number in (1, 2):
            raise ValueError("a rank correlation needs 3 subsets or more, say 20; 0: it is not asked")
        return number
