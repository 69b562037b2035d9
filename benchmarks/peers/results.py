"""What the side-by-side found: spreads, errors, pairs of ours and bergson, as a table and as figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.process import Case, Measurement
from testing.oracles import relative_error

SAME_WORK = 1e-3  # error of a float32 metagradient beyond which a method did other work than the rest
UNROLLED = ("naive", "torchopt")  # hold the graph of the whole run: memory proportional to T


@dataclass(frozen=True)
class Row:
    """A method at one length of training; ``pair``: the peer that it is compared with, at the same length."""

    name: str
    case: Case
    pair: str | None = None
    skipped: str | None = None


class Results:
    """Measurements of every row, repeat by repeat. Rows of equal cases share theirs."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self._found: dict[str, list[Measurement]] = {row.case.key: [] for row in rows}
        self._reasons: dict[str, str] = {}  # of a family that is missing, or of a case that failed

    def add(self, row: Row, measurement: Measurement) -> None:
        """Keep one repeat's measurement, or the reason for its lack."""
        if measurement.missing:
            self._reasons[row.case.family] = f"{row.case.family} cannot be imported: {measurement.missing}"
        elif measurement.failed:
            self._reasons[row.case.key] = measurement.failed
        else:
            self._found[row.case.key].append(measurement)

    def reason(self, row: Row) -> str | None:
        """Why a row has no figures; None where it has, or may have."""
        return row.skipped or self._reasons.get(row.case.family) or self._reasons.get(row.case.key)

    def of(self, row: Row) -> list[Measurement]:
        """The row's repeats."""
        return self._found[row.case.key]

    def row(self, name: str, steps: int) -> Row:
        """The row of a method at a length."""
        return next(row for row in self.rows if (row.name, row.case.steps) == (name, steps))

    def error(self, row: Row) -> float | None:
        """Distance of the row's metagradient to naive autograd's, or to the first of ours where that was not run."""
        same = [other for other in self.rows if other.case.steps == row.case.steps and self.of(other)]
        reference = next(
            (r for r in same if r.name == "naive"), next((r for r in same if r.case.family == "ours"), None)
        )
        if reference is None or not self.of(row):
            return None
        expected = torch.tensor(self.of(reference)[0].gradient, dtype=torch.float64)
        return max(relative_error(torch.tensor(m.gradient, dtype=torch.float64), expected) for m in self.of(row))

    def expected_gib(self, row: Row) -> float | None:
        """Memory of an unrolled run that was not made: proportional to T, from the one that was."""
        made = [r for r in self.rows if r.name == row.name and self.of(r)]
        if row.name not in UNROLLED or not made or made[0] is row:
            return None
        return median(m.peak_mib for m in self.of(made[0])) / 1024 * row.case.steps / made[0].case.steps

    def pairs(self) -> list[dict[str, Any]]:
        """Ours beside bergson with as many states: ratios of each repeat, their median, and what both advanced."""
        there = {(row.name, row.case.steps) for row in self.rows}
        return [self._pair(row) for row in self.rows if (row.pair, row.case.steps) in there]

    def _pair(self, row: Row) -> dict[str, Any]:
        assert row.pair is not None
        peer = self.row(row.pair, row.case.steps)
        about = {"ours": row.name, "peer": peer.name, "steps": row.case.steps}
        reason = self.reason(row) or self.reason(peer) or self._other_work(row, peer)
        if reason:
            return about | {"cpu_ratio": None, "peak_ratio": None, "reason": reason}
        ours, theirs = self.of(row), self.of(peer)
        return about | {
            "cpu_ratio": _median_ratio(ours, theirs, lambda m: m.cpu_s),
            "cpu_ratios": [a.cpu_s / b.cpu_s for a, b in zip(ours, theirs, strict=False)],
            "peak_ratio": _median_ratio(ours, theirs, lambda m: m.peak_mib),
            "states": [ours[0].states, theirs[0].states],
            "advances": [ours[0].advances, theirs[0].advances],
        }

    def _other_work(self, *rows: Row) -> str | None:
        errors = {row.name: self.error(row) for row in rows}
        off = {name: e for name, e in errors.items() if e is None or not e < SAME_WORK}
        return f"not the same metagradient: errors {off}, at most {SAME_WORK} allowed" if off else None

    def peak_growth(self) -> float | None:
        """Worst ratio of ours with fixed slots: peak at the longest training over that at the shortest."""
        lengths = [row.case.steps for row in self.rows]
        names = {row.name for row in self.rows if row.name.removeprefix("ours_").isdigit()}
        ends = [(self.of(self.row(name, max(lengths))), self.of(self.row(name, min(lengths)))) for name in names]
        grown = [_median_ratio(long, short, lambda m: m.peak_mib) for long, short in ends if long and short]
        return max(grown, default=None)

    def figures(self) -> dict[str, Any]:
        """The JSON figures; by method, then by T, null where there is none (``reasons`` says why)."""
        pairs = self.pairs()
        ratios = [pair["cpu_ratio"] for pair in pairs if pair["cpu_ratio"] is not None]
        return {
            "cpu_ratio_to_bergson": max(ratios, default=None),
            "peak_mib": self._table(lambda row: _middle(self.of(row), lambda m: m.peak_mib)),
            "cpu_s": self._table(lambda row: _middle(self.of(row), lambda m: m.cpu_s)),
            "spread": self._table(self._spread),
            "advances": self._table(lambda row: _first(self.of(row), "advances")),
            "states": self._table(lambda row: _first(self.of(row), "states")),
            "disk_mib": self._table(lambda row: _first(self.of(row), "disk_mib")),
            "max_gradient_error": max((e for e in map(self.error, self.rows) if e is not None), default=None),
            "peak_growth": self.peak_growth(),
            "expected_gib": {r.name: g for r in self.rows if (g := self.expected_gib(r)) is not None},
            "pairs": pairs,
            "reasons": self._table(self.reason),
            "peer_versions": {k: v for row in self.rows for m in self.of(row) for k, v in m.versions.items()},
        }

    def _table(self, figure: Callable[[Row], Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            found.setdefault(row.name, {})[str(row.case.steps)] = figure(row)
        return found

    def _spread(self, row: Row) -> dict[str, list[float]] | None:
        found = self.of(row)
        return {key: [getattr(m, key) for m in found] for key in ("cpu_s", "peak_mib")} if found else None

    def show(self) -> None:
        """The table of methods, and the pairs below it."""
        print(
            f"{'method':<16}{'T':>5}{'CPU s':>22}{'peak MiB':>22}{'advances':>10}{'states':>8}{'disk MiB':>10}  error"
        )
        for row in self.rows:
            print(f"{row.name:<16}{row.case.steps:>5}{self._line(row)}")
        print(f"\n{'ours':<16}{'peer':<16}{'T':>5}{'CPU, ours/peer':>16}{'peak':>7}{'states':>12}{'advances':>16}")
        for p in self.pairs():
            line = f"{p['ours']:<16}{p['peer']:<16}{p['steps']:>5}"
            print(line + (f"  {p['reason']}" if p["cpu_ratio"] is None else _pair_line(p)))

    def _line(self, row: Row) -> str:
        found = self.of(row)
        if not found:
            expected = self.expected_gib(row)
            return f"  not run: {self.reason(row)}" + (f", about {expected:.1f} GiB" if expected else "")
        cpu, peak = (_with_spread([getattr(m, key) for m in found]) for key in ("cpu_s", "peak_mib"))
        m, error = found[0], self.error(row)
        states = "graph" if m.states is None else f"{m.states} ({m.memory_states} + {m.disk_states})"
        shown = "" if error is None else f"{error:.1e}"
        return f"{cpu:>22}{peak:>22}{m.advances:>10}{states:>17}{m.disk_mib:>10.0f}  {shown}"


def _pair_line(p: dict[str, Any]) -> str:
    states, advances = (f"{a} / {b}" for a, b in (p["states"], p["advances"]))
    return f"{p['cpu_ratio']:>16.2f}{p['peak_ratio']:>7.2f}{states:>12}{advances:>16}"


def _with_spread(values: list[float]) -> str:
    digits = 0 if max(values) >= 100 else 1
    middle, least, most = (f"{x:.{digits}f}" for x in (median(values), min(values), max(values)))
    return f"{middle} ({least} .. {most})"


def _median_ratio(a: list[Measurement], b: list[Measurement], value: Callable[[Measurement], float]) -> float:
    """Of the ratios of the same repeat: a busy spell of the machine slows both."""
    return median(value(x) / value(y) for x, y in zip(a, b, strict=False))


def _middle(found: list[Measurement], value: Callable[[Measurement], float]) -> float | None:
    return median(map(value, found)) if found else None


def _first(found: list[Measurement], key: str) -> Any:
    return getattr(found[0], key) if found else None


Exactness = dict[tuple[str, str], Measurement]


def exactness_errors(found: Exactness) -> dict[str, dict[str, float | None]]:
    """Relative errors to naive autograd by problem and method; None where a peer is missing or failed."""
    errors: dict[str, dict[str, float | None]] = {}
    for (problem, name), measurement in found.items():
        expected = _vector(found[problem, "naive"])
        error = None if measurement.reason else relative_error(_vector(measurement), expected)
        errors.setdefault(problem, {})[name] = error
    return errors


def exactness_figures(found: Exactness) -> dict[str, Any]:
    """Errors of both problems; ours in chunks and bergson's accumulation on InfoNCE once more by themselves."""
    errors = exactness_errors(found)
    return {
        "float64_errors": errors,
        "info_nce_ours_in_chunks": errors["two_towers"]["ours_in_chunks"],
        "info_nce_bergson_accumulated": errors["two_towers"]["bergson_accumulated"],
    }


def show_exactness(found: Exactness) -> None:
    """The table of errors."""
    errors = exactness_errors(found)
    print(f"\n{'float64, T = 40, error to naive autograd':<42}{'cross-entropy':>15}{'InfoNCE':>12}")
    for name in errors["classifier"]:
        both = (errors[problem][name] for problem in ("classifier", "two_towers"))
        first, second = ("-" if e is None else f"{e:.1e}" for e in both)
        print(f"{name:<42}{first:>15}{second:>12}")
    for name in sorted({f"{name}: {m.reason}" for (_, name), m in found.items() if m.reason}):
        print(name)


def _vector(measurement: Measurement) -> Tensor:
    return torch.tensor(measurement.gradient, dtype=torch.float64)
