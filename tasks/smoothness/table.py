"""What was measured of smoothness: the published table, a summary of each recipe, and what to do below the bar."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from mgd_core.errors import UserError
from tasks.catalog.catalogs import BaseCatalog
from tasks.tables.published import files
from tasks.tables.queries import connect

OWN_NAME = "as it is"
FAVOURED = 5  # most knobs that a message names


class NotSmooth(UserError, RuntimeError):
    """The recipe is below the catalog's bar: its metagradients would be noise."""


@dataclass(frozen=True)
class Summary:
    """A row of the view `smoothness_summary`: a recipe over all its directions; None where a training became NaN or
    infinite, for the reason in ``failure``."""

    variant: str
    directions: int
    score: float | None
    lowest: float | None
    highest: float | None
    curvature: float | None
    movement: float | None
    heldout_accuracy: float | None
    failure: str
    lds: float | None


def summaries(home: Path, run: str) -> list[Summary]:
    """Every recipe that was measured, the catalog's own first, then the smoothest; empty if none was."""
    if 0 not in files(home, run, "smoothness"):
        return []
    columns = ", ".join(field.name for field in fields(Summary))
    with connect(home, run) as connection:
        rows = connection.execute(f"SELECT {columns} FROM smoothness_summary").fetchall()
    return [Summary(*row) for row in rows]


def own_score(home: Path, run: str) -> float | None:
    """Mean metasmoothness of the catalog's own recipe over its directions; None if it was not measured."""
    return next((s.score for s in summaries(home, run) if s.variant == OWN_NAME), None)


def format_summaries(found: list[Summary]) -> str:
    """A table for a terminal: S with its spread over the directions, beside what the recipe can do."""
    width = max(len(s.variant) for s in found)
    names = f"{'S':>6}  {'over directions':>16}  {'curvature':>9}  {'movement':>9}"
    asked = any(s.lds is not None for s in found)
    lines = [f"{'recipe':<{width}}  {names}  held-out accuracy" + ("     LDS" if asked else "")]
    for s in found:
        if s.score is None or s.heldout_accuracy is None:
            lines.append(f"{s.variant:<{width}}  {'-':>6}  {s.failure}")
            continue
        spread = f"{s.lowest:.3f} .. {s.highest:.3f}"
        figures = f"{s.score:>6.3f}  {spread:>16}  {s.curvature:>9.3g}  {s.movement:>9.3g}"
        lds = f"  {s.lds:>6.3f}" if s.lds is not None else ""
        lines.append(f"{s.variant:<{width}}  {figures}  {s.heldout_accuracy:>17.3f}{lds}")
    return "\n".join(lines)


def check_bar(home: Path, run: str, catalog: BaseCatalog) -> None:
    """Stop a curation whose recipe is not smooth enough.

    Raises:
        NotSmooth: names S, the bar, and which knobs to turn.
    """
    bar, found = catalog.smoothness.bar, summaries(home, run)
    if bar is None:
        return
    own = next(s for s in found if s.variant == OWN_NAME)
    if own.score is not None and own.score >= bar:
        return
    measured = "has no metasmoothness" if own.score is None else f"has metasmoothness S = {own.score:.3f}"
    spread = f": {own.failure}" if own.score is None else f" ({own.lowest:.3f} .. {own.highest:.3f} over directions)"
    raise NotSmooth(
        f"the recipe of catalog '{catalog.name}' {measured}{spread}, below its bar of {bar:g}: metagradients of such a "
        f"recipe say little, so no round was begun. {_advice(catalog, own, found)} Or lower smoothness.bar."
    )


def _advice(catalog: BaseCatalog, own: Summary, found: list[Summary]) -> str:
    """Which knobs the ablation favours; where there was none, which are worth trying."""
    if len(found) > 1:
        better = sorted((s for s in found if _score(s) > _score(own)), key=_score, reverse=True)
        if not better:
            return "No other value of the ablation is smoother; widen smoothness.menu."
        named = "; ".join(
            f"{s.variant} (S {s.score:.3f}, held-out accuracy {s.heldout_accuracy:.3f})" for s in better[:FAVOURED]
        )
        accuracy = "unknown" if own.heldout_accuracy is None else f"{own.heldout_accuracy:.3f}"
        return f"The ablation favours {named}; the accuracy is {accuracy} as it is."
    return (
        f"Worth trying, one at a time: {', '.join(_worth_trying(catalog))}. "
        "List values in [smoothness.menu] and `mgd smoothness CATALOG --sweep` measures them, beside held-out accuracy."
    )


def _worth_trying(catalog: BaseCatalog) -> list[str]:
    """Knobs that smooth most recipes (Engstrom et al. 2025, section 4), with their present values."""
    learner, start = catalog.learner, catalog.descent.window_start
    adam = [f"a larger learner.eps_root (now {learner.eps_root:g})"] if learner.optimizer == "adam" else []
    return [
        *adam,
        f"a larger learner.batch ({learner.batch})",
        f"a lower learner.learning_rate ({learner.learning_rate:g})",
        f"a longer learner.warmup ({learner.warmup})",
        f"a later descent.window_start ({start} of {learner.steps})",
        "another initial logit scale, width or norm placement of the model",
    ]


def _score(summary: Summary) -> float:
    return -2.0 if summary.score is None else summary.score
