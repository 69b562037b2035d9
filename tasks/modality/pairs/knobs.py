"""Knobs of a CLIP in an ablation: keys of its JSON config that open_clip reads, and widths and logit scale as a whole.

Width, norm placement, pooling and QK-norm are keys of the config, and can be turned where open_clip reads them.
"""

from __future__ import annotations

from math import log
from typing import Any

from tasks.catalog.files import CatalogError
from tasks.modality.pairs.model_configs import TOWERS, Config, known_keys

FIXED = {"image_size": "pictures", "context_length": "captions", "vocab_size": "captions"}
"""Keys that say how the data are laid out, and which data."""
DEFAULT_HEAD_WIDTH = 64  # open_clip's, of a vision tower


def turned_config(config: Config, knob: str, value: Any, source: str) -> Config:
    """The config, read from ``source``, with ``knob`` at another value.

    Raises:
        CatalogError: the knob would change nothing, or need other data; says which and why.
    """
    if knob == "logit_scale":
        return {**config, "init_logit_scale": log(value)}
    if knob == "width":
        wider = {**config, **{tower: _widened(config[tower], tower, value) for tower in TOWERS}}
        if wider == config:
            raise CatalogError(
                f"smoothness.menu.width = {value:g}: the model's config names no width that it would change "
                f"({source}). Remove it, or use a tower with a 'width'."
            )
        return wider
    _check_key(config, knob)
    tower, key = knob.split(".")
    return {**config, tower: {**config[tower], key: value}}


def _check_key(config: Config, path: str) -> None:
    """Refuse a key that open_clip would ignore, or that would need other data."""
    tower, _, key = path.partition(".")
    if tower not in TOWERS or not key:
        raise CatalogError(
            f"smoothness.menu.model: '{path}' is no key of a tower; write vision_cfg.KEY or text_cfg.KEY, in quotes"
        )
    known = known_keys(tower, config[tower])
    if key in FIXED:
        raise CatalogError(f"smoothness.menu.model: '{path}' would need other {FIXED[key]}; make it another catalog")
    if key not in known:
        raise CatalogError(
            f"smoothness.menu.model: open_clip reads no '{key}' for this tower, so it would change nothing; it reads "
            + ", ".join(sorted(known - set(FIXED)))
        )


def _widened(config: Config, tower: str, factor: float) -> Config:
    """A tower's config with its width, if it names one, times ``factor``, in whole heads of the same size."""
    if "width" not in config:
        return config
    if tower == "vision_cfg":
        size = int(config.get("head_width", DEFAULT_HEAD_WIDTH))
        return {**config, "width": size * max(1, round(config["width"] * factor / size))}
    heads = max(1, round(config["heads"] * factor))
    return {**config, "heads": heads, "width": config["width"] // config["heads"] * heads}
