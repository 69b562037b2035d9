"""Does what strangers' pools and mistakes do to `mgd` end as it should?

`python -m benchmarks.field` runs every case of `testing.field_cases` (an input, a command, the right outcome) against
the command line, beside a finished curation of the field pool, and counts those that end well and wrongly (silent),
with a traceback, or with another message than the right one. `--quick` takes every fourth; `--only` those whose name
or row is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks._envelope import emit
from benchmarks._server import own_server
from testing import field_cases
from testing.field_case import CASES, RIGHT, SILENT, TRACEBACK, Case, Judgement, Place, judged, run
from testing.field_pool import write_field_pool

QUICK = 4
"""`--quick` takes one case of so many."""


def main() -> None:
    """Judge all cases and print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every fourth case")
    parser.add_argument("--only", nargs="+", default=[], help="names or rows of cases")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mgd-field-") as scratch:
        found = judge_all(chosen(options.quick, options.only), Path(scratch))
    counts = Counter(one.verdict for one in found)
    print(f"\n{len(found)} cases: {', '.join(f'{n} {verdict}' for verdict, n in counts.most_common())}")
    emit(
        "field",
        {
            "quick": options.quick,
            "cases": len(found),
            "silent": counts[SILENT],
            "tracebacks": counts[TRACEBACK],
            "wrong": len(found) - counts[RIGHT] - counts[SILENT] - counts[TRACEBACK],
            "faults": {one.case.name: f"{one.verdict}: {one.why}" for one in found if one.verdict != RIGHT},
            "seconds": round(time.monotonic() - began, 1),
        },
    )


def chosen(quick: bool, only: list[str]) -> list[Case]:
    """The cases asked for."""
    assert field_cases.__all__
    cases = list(CASES.values())
    if only:
        return [one for one in cases if one.name in only or one.row in only]
    return cases[::QUICK] if quick else cases


def judge_all(cases: list[Case], scratch: Path) -> list[Judgement]:
    """Judge each case beside one finished curation, under one Prefect server; a line for each as it ends."""
    with own_server(scratch / "server"):
        finished = scratch / "finished" / "home"
        ended = run(["curate", str(write_field_pool(scratch / "finished").catalog), "--home", str(finished)])
        if ended.status:
            print(f"mgd curate on the field pool failed:\n{ended.err}{ended.crash}", file=sys.stderr)
        found = []
        for one in cases:
            found.append(judged(one, Place(scratch / one.name, finished)))
            print(f"{one.row:>5}  {one.name:<54} {found[-1].verdict:<10} {found[-1].why}", flush=True)
        return found


if __name__ == "__main__":
    main()
