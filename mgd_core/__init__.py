"""Exact metagradients of a training run: d (loss of the trained model) / d (weight of every example), by REPLAY.

The public surface; everything else is imported from its module. See Engstrom et al. 2025, arXiv 2503.13751.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgd_core.adapters.adapted_run import metagradient
    from mgd_core.autodiff.objective import Objective
    from mgd_core.engine.probe import Probe
    from mgd_core.engine.replay import Metagradient, replay, train
    from mgd_core.plans.plan import binomial, keep_all
    from mgd_core.training.learner import Batch, Learner
    from mgd_core.training.optimizers import Adam, Sgd, State

__all__ = [
    "Adam",
    "Batch",
    "Learner",
    "Metagradient",
    "Objective",
    "Probe",
    "Sgd",
    "State",
    "binomial",
    "keep_all",
    "metagradient",
    "replay",
    "train",
]

_MODULES = {
    "adapters.adapted_run": ("metagradient",),
    "autodiff.objective": ("Objective",),
    "plans.plan": ("binomial", "keep_all"),
    "engine.probe": ("Probe",),
    "engine.replay": ("Metagradient", "replay", "train"),
    "training.learner": ("Batch", "Learner"),
    "training.optimizers": ("Adam", "Sgd", "State"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is asked for: importing torch takes seconds, and who reads a table needs none."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mgd_core.{_MODULE_OF[name]}"), name)
