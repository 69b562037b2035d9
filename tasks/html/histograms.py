"""Histograms of a table's columns: bins of one round width, counted in SQL, drawn as step outlines.

Bins end at the 99th percentile, so that a few giants do not press all others into one bin; how many lie beyond and
how far is said in words. Cost: two scans of the columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tasks.html import charts

STYLES = ("clean", "swapped", "plain")
ABOUT = 36  # bins of a histogram, about
Ask = Callable[[str], Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class Bins:
    """Counts by bin of each column; bin b spans [b, b + 1) widths."""

    width: float
    counts: Mapping[str, Mapping[int, int]]
    words: str


def bin_values(ask: Ask, table: str, columns: Mapping[str, str]) -> Bins:
    """Bins of some columns (name: SQL expression) of `table`; columns without any value are left out."""
    columns = {name: f"CASE WHEN isfinite(({sql})::DOUBLE) THEN {sql} END" for name, sql in columns.items()}
    asked = ", ".join(f"min({sql}), quantile_cont({sql}, 0.99), max({sql}), median({sql})" for sql in columns.values())
    (row,) = ask(f"SELECT {asked} FROM {table}")
    spans = {name: row[4 * i : 4 * i + 4] for i, name in enumerate(columns) if row[4 * i] is not None}
    if not spans:
        return Bins(1.0, {}, "")
    low = min(float(span[0]) for span in spans.values())
    high = max(float(span[1]) for span in spans.values())
    whole = all(isinstance(span[2], int) for span in spans.values())
    width = _round_width((high - low) / ABOUT, whole)
    last = math.floor(high / width)
    counts = {}
    for name in spans:
        sql = f"SELECT floor(({columns[name]}) / {width!r})::BIGINT AS b, count(*) FROM {table} "
        sql += f"WHERE ({columns[name]}) IS NOT NULL GROUP BY b HAVING b <= {last} ORDER BY b"
        counts[name] = {int(b): int(n) for b, n in ask(sql)}
    return Bins(width, counts, "; ".join(_words(name, span, len(spans) > 1) for name, span in spans.items()) + ".")


def histogram(title: str, bins: Bins, unit: str, what: str = "samples") -> Markup:
    """Overlaid outlines of all columns, named above them where there are several; `what` is counted."""
    series = [(name, style, dict(counts)) for (name, counts), style in zip(bins.counts.items(), STYLES, strict=False)]
    named = [(name, style) for name, style, _ in series] if len(series) > 1 else []
    return charts.keys(named) + charts.histogram(title, bins.width, series, unit, decision=False, what=what)


def _round_width(width: float, whole: bool) -> float:
    """The next round number at or above `width`; a whole one for whole numbers."""
    if width <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    found = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= width * (1 - 1e-9))
    return float(max(1, math.ceil(found))) if whole else found


def _words(name: str, span: Sequence[float], named: bool) -> str:
    _, high, most, median = (float(value) for value in span)
    told = f"median {median:,.4g}, 99 % up to {high:,.4g}, the largest {most:,.4g}"
    return f"{name}: {told}" if named else told
