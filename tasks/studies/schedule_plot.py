"""The picture of `mgd schedule`: learning rate over the training, from the flat schedule to the last metagradient step.

An SVG of its own, which needs nothing else: the paler a line, the earlier the metagradient step; dashed, the best
one-cycle of the grid.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from tasks.files.artefacts import publish_bytes
from tasks.html.charts import ticks
from tasks.tables.published import read

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 70, 150, 20, 40
LINES = 8  # steps of the descent that are drawn


def draw_schedules(home: Path, run: str, path: Path) -> Path:
    """Write the picture of a study's published schedules; returns its path."""
    rows = read(home, run, "schedules", 0).to_pylist()
    curves = [(key, list(group)) for key, group in groupby(rows, key=lambda row: (row["schedule"], row["number"]))]
    descent = [group for (name, _), group in curves if name == "descent"]
    grid = [group for (name, _), group in curves if name == "grid"]
    count = min(LINES, len(descent))
    shown = [descent[round(i * (len(descent) - 1) / max(1, count - 1))] for i in range(count)]
    marks = ticks(0.0, max(row["learning_rate"] for group in (*shown, *grid) for row in group))
    steps, top = len(rows[: len(shown[0])]), marks[-1]

    def point(row: dict[str, Any]) -> str:
        x = LEFT + row["step"] / max(1, steps - 1) * (WIDTH - LEFT - RIGHT)
        return f"{x:.1f},{HEIGHT - BOTTOM - row['learning_rate'] / top * (HEIGHT - TOP - BOTTOM):.1f}"

    def line(group: list[dict[str, Any]], style: str) -> str:
        return f'<polyline fill="none" {style} points="{" ".join(point(row) for row in group)}"/>'

    parts = [_mark(value, top) for value in marks]
    for i, group in enumerate(shown):
        strength = 0.15 + 0.85 * i / max(1, len(shown) - 1)
        parts.append(line(group, f'stroke="#1f5fa8" stroke-opacity="{strength:.2f}" stroke-width="2"'))
    parts += [line(group, 'stroke="#b4531f" stroke-width="2" stroke-dasharray="6 4"') for group in grid]
    last, x = shown[-1][0], WIDTH - RIGHT + 10
    told = [("#1f5fa8", f"{last['number']} steps: {last['target_loss']:.3f}")]
    told += [("#b4531f", f"best one-cycle: {group[0]['target_loss']:.3f}") for group in grid]
    parts += [f'<text x="{x}" y="{TOP + 20 + 20 * i}" fill="{c}">{words}</text>' for i, (c, words) in enumerate(told)]
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">training step 0 to {steps - 1}; target loss in nats</text>')
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    publish_bytes(path, f'<svg xmlns="http://www.w3.org/2000/svg" {view}>\n{body}\n</svg>\n'.encode())
    return path


def _mark(value: float, top: float) -> str:
    y = HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
    rule = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>'
    return f'{rule}<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
