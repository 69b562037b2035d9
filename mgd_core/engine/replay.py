"""REPLAY: the exact gradient of a target through a whole training run (Engstrom et al. 2025, arXiv 2503.13751, sec. 3).

Only the window [k, T) is differentiated: what happened before step k counts as fixed. Cost: T steps, the plan's
advances, and about 2.7 steps for each reverse step (mgd_core.engine.reverse). Two surrogates come out of one traversal:

* ``path``: weights enter wherever an example is visited in the window; its gradient is summed over the visits;
* ``probe``: ``gamma`` of step k (and of any other steps asked for), from which mgd_core.engine.probe scores any
candidate.

Any other metaparameter that steps read (mgd_core.engine.metaparameters) is differentiated by in the same traversal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mgd_core.engine.journal import Journal
from mgd_core.engine.metagradient import Metagradient, ProbePoint
from mgd_core.engine.metaparameters import Metaparameter
from mgd_core.engine.over_ranks import Target
from mgd_core.engine.store import Store
from mgd_core.engine.training import Progress, train
from mgd_core.engine.traversal import Traversal
from mgd_core.plans.actions import Plan, Tier
from mgd_core.training.learner import Learner
from mgd_core.training.optimizers import State

__all__ = ["Metagradient", "ProbePoint", "Progress", "Target", "replay", "train"]


def replay(
    learner: Learner,
    initial: State,
    target: Target,
    plan: Plan,
    pool_size: int,
    probe_steps: Collection[int] = (),
    gradient_from_moments: bool = True,
    on: Progress | None = None,
    store: Store | None = None,
    journal: Journal | None = None,
    metaparameters: Sequence[Metaparameter] = (),
) -> Metagradient:
    """Train from ``initial``, evaluate ``target``, and traverse the window of ``plan`` in reverse.

    ``probe_steps``: steps of the window whose (theta, gamma) are returned for probing. ``pool_size``: length of the
    example axis that ``Batch.ids`` index into. ``store``: where the plan's states are kept; None: in memory alone. With
    a ``journal`` (mgd_core.engine.journal.durable makes both) the traversal goes on from the newest record of an
    earlier process that was given the same arguments. ``metaparameters``: further kinds whose gradients are wanted,
    beside example weights and learning rates; ``learner`` reads their z already (``kind.placed``). Plan, tiers and
    where it was cut off change no bit of the result.

    Before the first step the model is looked at on a few rows (mgd_core.engine.examination): whether it can be
    differentiated exactly, and by which way.

    Raises:
        RefusedModel: the model couples rows, leaves to chance, keeps state, or has no second derivative; told before
            the first step.
        InexactError: the derivative of a reverse step is not that of the step that was trained.
        NonFiniteError: a loss or cotangent became NaN or infinite (step and parameter named).
        NondeterminismError: a replayed state differs from the first one.
        NoRoom: the states do not fit on the disk; told before the first step where it can be known.
        CorruptState: a file of states is damaged.
        ValueError: the plan's window does not end with the training, a probe step lies outside it, the store lacks
            the disk that plan or journal need, or two metaparameters have one name.
    """
    if plan.stop != learner.steps:
        raise ValueError(f"the plan ends at step {plan.stop}, the training at step {learner.steps}: they must agree")
    outside = [k for k in probe_steps if not plan.start <= k < plan.stop]
    if outside:
        raise ValueError(f"probe steps {outside} lie outside the differentiated window [{plan.start}, {plan.stop})")
    store = Store() if store is None else store
    if not store.has_disk and (journal is not None or Tier.DISK in plan.peak_states):
        who = "a journal needs" if journal is not None else f"plan '{plan.name}' keeps states on disk and needs"
        raise ValueError(f"{who} a store with a disk tier; mgd_core.engine.journal.durable makes one")
    names = ["example", "learning_rate", *(kind.name for kind in metaparameters)]
    if len(set(names)) < len(names):
        raise ValueError(f"two metaparameters have one name among {names}; example and learning_rate are always there")
    how = set(probe_steps), gradient_from_moments, on, store, journal, metaparameters
    return Traversal(learner, target, plan, pool_size, *how).run(initial)
