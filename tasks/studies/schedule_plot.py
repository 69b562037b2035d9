"""The picture of `mgd schedule`: learning rate over the training, from the flat schedule to the last metagradient step.

The paler a line, the earlier the metagradient step; dashed, the best one-cycle of the grid. In the study's page it has
the style of the page; as a file of its own it brings one.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from tasks.files.artefacts import publish_bytes
from tasks.html.charts import Series, curves, standalone
from tasks.tables.published import read

LINES = 8  # steps of the descent that are drawn
STYLE = """
text { font: 12px sans-serif; fill: #444 } .grid { stroke: #ccc } .line { fill: none; stroke-width: 2 }
.line.heldout { stroke: #1f5fa8 } .line.rival { stroke: #b4531f; stroke-dasharray: 6 4 }
.name.heldout { fill: #1f5fa8 } .name.rival { fill: #b4531f }
"""


def draw_schedules(home: Path, run: str, path: Path) -> Path:
    """Write the picture of a study's published schedules; returns its path."""
    publish_bytes(path, standalone(schedules(home, run), STYLE).encode())
    return path


def schedules(home: Path, run: str) -> Markup:
    """The picture of a study's published schedules."""
    rows = read(home, run, "schedules", 0).to_pylist()
    courses = [(key, list(group)) for key, group in groupby(rows, key=lambda row: (row["schedule"], row["number"]))]
    descent = [group for (name, _), group in courses if name == "descent"]
    grid = [group for (name, _), group in courses if name == "grid"]
    count = min(LINES, len(descent))
    shown = [descent[round(i * (len(descent) - 1) / max(1, count - 1))] for i in range(count)]
    last = shown[-1][0]
    names = [""] * (count - 1) + [f"{last['number']} steps: {last['target_loss']:.3f}"]
    series = [Series(name, "heldout", _rates(group)) for name, group in zip(names, shown, strict=True)]
    series += [Series(f"best one-cycle: {group[0]['target_loss']:.3f}", "rival", _rates(group)) for group in grid]
    strengths = [0.15 + 0.85 * i / max(1, count - 1) for i in range(count)] + [1.0] * len(grid)
    note = f"training step 0 to {len(shown[0]) - 1}; target loss in nats"
    return curves("Learning rate over the training", series, strengths, note)


def _rates(group: list[dict[str, float]]) -> list[float]:
    return [row["learning_rate"] for row in group]
