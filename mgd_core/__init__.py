"""Exact metagradients of a training run: d (loss of the trained model) / d (weight of every example), by REPLAY.

The public surface; everything else is imported from its module. See Engstrom et al. 2025, arXiv 2503.13751.
"""

from mgd_core.learner import Batch, Learner
from mgd_core.objective import Objective
from mgd_core.optimizers import Adam, Sgd, State
from mgd_core.plans import binomial, keep_all
from mgd_core.probe import Probe
from mgd_core.replay import Metagradient, replay, train

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
    "replay",
    "train",
]
