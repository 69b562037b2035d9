"""Whether the descent goes on fitting its target after it has stopped helping: target and held-out part ways.

A target of a few hundred samples can be learnt by heart: its figures keep getting better from round to round while
those of the held-out target, which no metagradient saw, get worse. The rule of choice then takes an early round, and
the later ones were spent on the target's own samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.evaluation.measures import percent, share_error
from tasks.files.plurals import counted

FALL = 0.1
"""Share of the target loss's fall that the held-out loss must rise by to be told; accuracies have a standard error."""
LEAST = 0.01
"""Nats below which a change of either loss is not worth a word."""


def parting(rounds: Sequence[dict[str, Any]], chosen: int | None) -> str:
    """One passage for a person, from the rows of `rounds` in their order; empty where the two do not part."""
    at = next((row for row in rounds if row["round"] == chosen), None)
    if at is None or rounds[-1]["round"] == chosen:
        return ""
    last = rounds[-1]
    for what, parted, shown in (("accuracy", _by_accuracy, percent), ("loss", _by_loss, _nats)):
        if parted(at, last):
            return (
                f"Target and held-out part ways after round {chosen}, the chosen one: up to round {last['round']} the "
                f"target's {what}{_size(at['target_n'])} goes on from {shown(at[f'target_{what}'])} to "
                f"{shown(last[f'target_{what}'])}, while the held-out one's{_size(at['heldout_n'])} worsens from "
                f"{shown(at[f'heldout_{what}'])} to {shown(last[f'heldout_{what}'])}. What the later rounds gain is "
                "fitted to the target's own samples; a larger target would carry further."
            )
    return ""


def _by_accuracy(at: dict[str, Any], last: dict[str, Any]) -> bool:
    """The target's is higher, the held-out one's lower by more than chance."""
    n, share = at["heldout_n"], at["heldout_accuracy"]
    chance = share_error(share, n) if n else 0.0
    return bool(last["target_accuracy"] > at["target_accuracy"] and share - last["heldout_accuracy"] > chance)


def _by_loss(at: dict[str, Any], last: dict[str, Any]) -> bool:
    gain = at["target_loss"] - last["target_loss"]
    return bool(gain > LEAST and last["heldout_loss"] - at["heldout_loss"] > max(LEAST, FALL * gain))


def _size(n: int | None) -> str:
    return f" ({counted(n, 'sample')})" if n else ""


def _nats(value: float) -> str:
    return f"{value:.3f} nats"
