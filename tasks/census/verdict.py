"""The census's verdict: what was found against what the catalog allows, a line each.

Rejected samples and damaged tars are judged by the rule of the pool's builder, so a census that ends well means that
the pool can be built. Everything else is judged kind by kind (`census_kinds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.files.option_types import Strict
from tasks.pool.census_kinds import KINDS, CensusOptions
from tasks.pool.record import BuildOptions
from tasks.pool.validation import DAMAGE, REASONS


class Line(Strict):
    """One sort of finding: how many there are, among how many what, and how many are allowed (None: any number)."""

    kind: str
    count: int
    total: int
    of: str
    allowed: int | None
    over: bool


class CensusRecord(Strict):
    """A finished census. Its existence as `census.json` says that its tables are complete."""

    key: str
    pool_id: str
    source: str
    totals: dict[str, int]
    findings: dict[str, int]
    lines: tuple[Line, ...]
    mgd: str | None = None
    """The version of mgd that took it; None: one that did not say."""

    @property
    def within_budget(self) -> bool:
        """Whether nothing was found beyond what the catalog allows."""
        return not any(line.over for line in self.lines)


def verdict(
    options: CensusOptions, build: BuildOptions, totals: Mapping[str, int], findings: Mapping[str, int]
) -> Iterator[Line]:
    """The budget's two lines, then a line a kind that was found."""
    damaged = sum(findings.get(kind, 0) for kind in DAMAGE)
    rejected = sum(findings.get(kind, 0) for kind in REASONS) - damaged
    seen = totals["samples"] + totals["rejects"]
    budget = build.max_rejects
    allowed = budget if isinstance(budget, int) else int(budget * seen)
    yield _line("rejected samples", rejected, seen, "samples", allowed)
    yield _line("damaged tars", damaged, totals["shards"], "shards", build.max_damaged_shards)
    for kind in KINDS:
        if findings.get(kind):
            total = seen if kind in REASONS and KINDS[kind].of == "samples" else totals[KINDS[kind].of]
            yield _line(kind, findings[kind], total, KINDS[kind].of, options.allowed(kind, total))


def _line(kind: str, count: int, total: int, of: str, allowed: int | None) -> Line:
    over = allowed is not None and count > allowed
    return Line(kind=kind, count=count, total=total, of=of, allowed=allowed, over=over)
