"""Charts: a handful of small inline SVGs, drawn from plain numbers, with no scripts and no libraries.

Every chart is `WIDTH` by its height in units of its view box and scales with its column; colours and type come from
the page's style sheet by class. Equal numbers give equal text: coordinates are rounded to a tenth of a unit. Ranges
end near the data (no axis is longer than what it measures), series are named at their ends instead of in a legend.
Cost: linear in the points drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.html.pages import escaped

WIDTH, HEIGHT = 460, 232
LEFT, RIGHT, TOP, BOTTOM = 50, 90, 20, 30
LINE = 14  # units between two lines of type
Number = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line or band: its name at the end, its CSS class, and a value a round (None: not measured)."""

    name: str
    style: str
    values: Sequence[float | None]


def line_chart(title: str, rounds: Sequence[int], series: Sequence[Series], show: Number, chosen: int | None) -> Markup:
    """Lines over the rounds, the chosen round marked."""
    known = [v for one in series for v in one.values if v is not None]
    marks = ticks(min(known), max(known))
    low, high = min(marks[0], *known), max(marks[-1], *known)
    x, y = _rounds_axis(rounds), _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(y(mark), show(mark)) for mark in marks]
    parts += [_round_names(rounds, x, chosen)]
    if chosen in rounds:
        at = _n(x(rounds.index(chosen)))
        parts.append(f'<line class="chosen" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    ends = []
    for one in series:
        points = [(x(i), y(v), v, rounds[i]) for i, v in enumerate(one.values) if v is not None]
        parts.append(_line(one.style, [at[:2] for at in points]))
        for px, py, value, number in points:
            ring = " picked" if number == chosen else ""
            told = f"<title>round {number}, {escaped(one.name)}: {escaped(show(value))}</title>"
            parts.append(
                f'<circle class="point {one.style}{ring}" cx="{_n(px)}" cy="{_n(py)}" r="{4.5 if ring else 2.6}">'
                f"{told}</circle>"
            )
        if points:
            ends.append((points[-1][1], points[-1][0], one))
    parts += _end_names(ends)
    return _svg(title, HEIGHT, parts)


def histogram(
    title: str,
    width: float,
    series: Sequence[tuple[str, str, dict[int, int]]],
    note: str,
    decision: bool = True,
    what: str = "samples",
) -> Markup:
    """Overlaid step outlines of bins of one width; bin b spans [b, b + 1) widths, so that 0 lies between two bins.

    Each of `series` is a name, a CSS class and the number in each bin. `note` names the x axis. `decision`: 0 parts
    what helps from what does not. `what` is counted.
    """
    bins = range(min(b for *_, one in series for b in one), max(b for *_, one in series for b in one) + 1)
    most = max(n for *_, one in series for n in one.values())
    x = _scale(bins[0], bins[-1] + 1, LEFT, WIDTH - 14)
    y = _scale(0, most, HEIGHT - BOTTOM - 16, TOP + LINE)
    floor = _n(y(0))
    parts = []
    for name, style, one in series:
        steps = "".join(f"H{_n(x(b))}V{_n(y(one.get(b, 0)))}H{_n(x(b + 1))}" for b in bins)
        told = f"<title>{escaped(name)}: {sum(one.values()):,} {escaped(what)}</title>"
        parts.append(f'<path class="area {style}" d="M{_n(x(bins[0]))},{floor}{steps}V{floor}Z">{told}</path>')
    parts += [_horizontal(y(mark), f"{mark:,.0f}", WIDTH - 14) for mark in ticks(0, most, 4)[1:] if mark >= 1]
    parts.append(_text("axis", 0, TOP + 4, what))
    exponent = scale_exponent(max(abs(bins[0]), abs(bins[-1] + 1)) * width)
    for mark in ticks(bins[0] * width, (bins[-1] + 1) * width, 5):
        shown = f"{mark / 10**exponent + 0.0:g}".replace("-", "−")
        parts.append(_text("tick", x(mark / width), HEIGHT - BOTTOM, shown, "middle"))
    if decision:
        parts.append(f'<line class="decision" x1="{_n(x(0))}" x2="{_n(x(0))}" y1="{TOP - 4}" y2="{floor}"/>')
        parts.append(_text("note", x(0) - 7, TOP + 4, "← more helps", "end"))
        parts.append(_text("note", x(0) + 7, TOP + 4, "less helps →"))
    parts.append(_text("axis", (LEFT + WIDTH - 14) / 2, HEIGHT - 8, note + unit_name(exponent), "middle"))
    return _svg(title, HEIGHT, parts)


def curves(title: str, series: Sequence[Series], strengths: Sequence[float], note: str) -> Markup:
    """Lines through the values of a course from its first to its last step, from 0 on; with room for longer names.

    `strengths`: how opaque each line is, 0 to 1. `note` names the x axis.
    """
    known = [[v for v in one.values if v is not None] for one in series]
    marks = ticks(0.0, max(map(max, known)))
    end = WIDTH - 2 * RIGHT
    y = _scale(0, max(marks[-1], *map(max, known)), HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(y(mark), f"{mark:g}", end) for mark in marks]
    ends = []
    for one, values, strength in zip(series, known, strengths, strict=True):
        x = _scale(0, len(values) - 1, LEFT, end)
        course = [(x(i), y(value)) for i, value in enumerate(values)]
        parts.append(_line(one.style, course, f' stroke-opacity="{strength:.2f}"'))
        ends += [(y(values[-1]), end, one)] if one.name else []
    parts.append(_text("axis", LEFT, HEIGHT - 8, note))
    return _svg(title, HEIGHT, [*parts, *_end_names(ends)])


def standalone(drawn: Markup, style: str) -> str:
    """A chart as a file of its own, in a style of its own."""
    head, _, rest = str(drawn).removeprefix("<svg").partition(">")
    return f'<svg xmlns="http://www.w3.org/2000/svg"{head}><style>{style}</style>{rest}\n'


def keys(names: Sequence[tuple[str, str]]) -> Markup:
    """What the outlines of a histogram are, above it: a name and a CSS class each; nothing of none."""
    told = "".join(f'<span class="key {style}">{escaped(name)}</span>' for name, style in names)
    return Markup(f'<p class="keys">{told}</p>' if told else "")


def stacked_columns(title: str, rounds: Sequence[int], series: Sequence[Series], chosen: int | None) -> Markup:
    """Columns of shares that add to 1, one a round, the first series at the bottom."""
    x, y = _rounds_axis(rounds, True), _scale(0, 1, HEIGHT - BOTTOM, TOP)
    half = _column_half(len(rounds))
    parts, ends = [], []
    base = [0.0] * len(rounds)
    for one in series:
        for i, value in enumerate(one.values):
            top = base[i] + (value or 0)
            told = f"<title>round {rounds[i]}, {escaped(one.name)}: {100 * (value or 0):.1f} %</title>"
            parts.append(_rect(one.style, x(i) - half, y(top), 2 * half, y(base[i]) - y(top), told))
            middle, base[i] = (base[i] + top) / 2, top
        if one.values[-1]:
            ends.append((y(middle), x(len(rounds) - 1) + half - 5, one))
    parts += [_horizontal(y(mark), f"{100 * mark:.0f} %", style="over") for mark in (0, 0.5, 1)]
    parts += [_round_names(rounds, x, chosen), *_end_names(ends, ink=False)]
    return _svg(title, HEIGHT, parts)


def two_way_columns(title: str, rounds: Sequence[int], up: Series, down: Series) -> Markup:
    """Columns that rise for one series and fall for the other."""
    most = max([*(v or 0 for v in up.values), *(v or 0 for v in down.values), 1])
    x, y = _rounds_axis(rounds, True), _scale(-most, most, HEIGHT - BOTTOM, TOP)
    half = _column_half(len(rounds))
    parts, ends = [], []
    for one, sign in ((up, 1), (down, -1)):
        for i, value in enumerate(one.values):
            top, low = sorted((y(0), y(sign * (value or 0))))
            told = f"<title>round {rounds[i]}: {value or 0:,} {escaped(one.name)}</title>"
            parts.append(_rect(one.style, x(i) - half, top, 2 * half, low - top, told))
        ends.append((y(sign * most / 2), x(len(rounds) - 1) + half - 5, one))
    marks = [mark for mark in ticks(0, most, 3)[1:] if mark >= 1]
    parts += [_horizontal(y(mark), f"{abs(mark):,.0f}", style="over") for mark in (*(-m for m in marks), 0, *marks)]
    parts += [_round_names(rounds, x, None), *_end_names(ends, ink=False)]
    return _svg(title, HEIGHT, parts)


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Horizontal bars: a name, a length and the text at its end each."""
    left, step = 112, 26
    x = _scale(0, max([length for _, length, _ in rows] + [1e-12]), left, WIDTH - 108)
    parts = []
    for i, (name, length, text) in enumerate(rows):
        y = 8 + i * step
        parts.append(_text("label", left - 10, y + 12, name, "end"))
        parts.append(_rect("bar", left, y, max(x(length) - left, 1), 16, ""))
        parts.append(_text("tick", x(length) + 7, y + 12, text))
    return _svg(title, 12 + step * len(rows), parts)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in [low, high], about `about` of them."""
    if high <= low:
        high = low + (abs(low) or 1) * 0.1
    power = 10.0 ** (math.floor(math.log10((high - low) / about)))
    steps = [power * m for m in (0.5, 1, 2, 2.5, 5, 10)]
    spans = [(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9), step) for step in steps]
    first, last, step = min(spans, key=lambda span: (abs(span[1] - span[0] + 1 - about), -span[2]))
    return [round(k * step, 12 - math.floor(math.log10(step))) + 0.0 for k in range(first, last + 1)]


def scale_exponent(largest: float) -> int:
    """The power of ten to divide by before numbers up to `largest` are shown: 0 where they read well as they are."""
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    return 0 if -2 <= exponent <= 3 else exponent


def unit_name(exponent: int) -> str:
    """What follows a quantity's name when it was divided by a power of ten."""
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f", in units of 10{raised}" if exponent else ""


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (stop - start)


def _rounds_axis(rounds: Sequence[int], columns: bool = False) -> Callable[[float], float]:
    inset = _column_half(len(rounds)) + 2 if columns else 8
    if len(rounds) == 1:
        return lambda _: (LEFT + WIDTH - RIGHT) / 2
    return _scale(0, len(rounds) - 1, LEFT + inset, WIDTH - RIGHT - inset)


def _column_half(n: int) -> float:
    return min(22.0, (WIDTH - RIGHT - LEFT) / n * 0.42)


def _horizontal(y: float, text: str, end: float = WIDTH - RIGHT, style: str = "grid") -> str:
    rule = f'<line class="{style}" x1="{LEFT}" x2="{_n(end)}" y1="{_n(y)}" y2="{_n(y)}"/>'
    return rule + _text("tick", LEFT - 7, y + 4, text, "end")


def _round_names(rounds: Sequence[int], x: Callable[[float], float], chosen: int | None) -> str:
    """Round numbers below the axis, thinned out where there are many; the chosen one always, in its own style."""
    every, y = max(1, -(-len(rounds) // 12)), HEIGHT - BOTTOM + 18
    parts = []
    for i, number in enumerate(rounds):
        if number == chosen or i % every == 0:
            parts.append(_text("tick picked" if number == chosen else "tick", x(i), y, number, "middle"))
    return "".join([*parts, _text("axis", LEFT - 7, y, "round", "end")])


def _end_names(ends: Sequence[tuple[float, float, Series]], ink: bool = True) -> list[str]:
    """Names beside the ends of the series, pushed apart so that none covers another."""
    parts, last = [], -math.inf
    for y, x, one in sorted(ends, key=lambda end: (end[0], end[2].name)):
        last = max(y, last + LINE)
        style = f"name {one.style}" if ink else "name"
        parts.append(_text(style, x + 10, last + 4, one.name))
    return parts


def _line(style: str, points: Sequence[tuple[float, float]], more: str = "") -> str:
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return f'<polyline class="line {style}"{more} points="{path}"/>'


def _text(style: str, x: float, y: float, words: object, anchor: str = "") -> str:
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}"{anchored}>{escaped(words)}</text>'


def _rect(style: str, x: float, y: float, width: float, height: float, inner: str) -> str:
    box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
    return f'<rect class="{style}" {box}>{inner}</rect>'


def _svg(title: str, height: int, parts: Sequence[str]) -> Markup:
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escaped(title)}"'
    return Markup(f"<svg {box}>{''.join(parts)}</svg>")


def _n(value: float) -> str:
    """A coordinate: one digit after the point, none where it would be 0."""
    return f"{round(value, 1) + 0.0:g}"
