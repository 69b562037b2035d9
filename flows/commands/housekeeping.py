"""`mgd remove` and `mgd prune`: runs that are no longer wanted, and what can be made again."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import nullcontext

from flows.commands import Make, named

REMOVE = """remove runs with their tables, work, subsets and reports

Refused while anything runs in the home, and for a run that another one began from (descent.start)."""

PRUNE = """list, or delete, what would be made again when it is asked for

Work of finished runs, decoded pictures, fetched shards, what is known of targets and of single tars, pools that no run
is of, and old logs. Without
--yes nothing is deleted. Tables, records, subsets and reports stay."""

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def add_remove(make: Make) -> None:
    """Add the command's parser."""
    made = make("remove", _remove, REMOVE)
    made.set_defaults(alone=True)
    made.add_argument("runs", nargs="+", type=named, metavar="RUN", help="id of a run, as `mgd runs` lists them")


def add_prune(make: Make) -> None:
    """Add the command's parser."""
    made = make("prune", _prune, PRUNE)
    made.set_defaults(alone=True)
    text = "only what has not been written for so long: 30d, 12h"
    made.add_argument("--older-than", type=_days, metavar="AGE", help=text)
    text = "the oldest first, until the home holds no more than this: 50GiB"
    made.add_argument("--to", type=_bytes, metavar="SIZE", help=text)
    made.add_argument("--history", action="store_true", help="flow runs of that age in Prefect's history as well")
    made.add_argument("--yes", action="store_true", help="delete it")


def _remove(options: argparse.Namespace) -> int:
    from flows.runtime.session import alone
    from tasks.files.plurals import sized
    from tasks.runs.housekeeping import remove_run

    with alone(options.home):
        for run in options.runs:
            print(f"removed {run}: {sized(remove_run(options.home, run))}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from flows.runtime.session import alone

    with alone(options.home) if options.yes else nullcontext():
        _delete(options)
    if options.history:
        print(_history(options))
    return 0


def _delete(options: argparse.Namespace) -> None:
    """Delete, or list, what can go."""
    from tasks.files.plurals import sized
    from tasks.runs.housekeeping import delete, leftovers, size_of, to_go

    chosen = to_go(list(leftovers(options.home)), options.older_than, size_of(options.home), options.to, time.time())
    for one in chosen:
        day = time.strftime("%Y-%m-%d", time.localtime(one.used))
        print(f"{sized(one.size):>10}  {day}  {one.path.relative_to(options.home)}  ({one.what})")
    total = sized(sum(one.size for one in chosen))
    print(f"deleted: {sized(delete(chosen))}" if options.yes else f"{total} can go; --yes deletes them")


def _history(options: argparse.Namespace) -> str:
    """Delete, or count, flow runs that ended before the age that was given."""
    from datetime import timedelta

    from flows.commands import flow_session

    with flow_session(options.home):
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterEndTime
        from prefect.types import DateTime

        before = DateTime.now("UTC") - timedelta(days=options.older_than or 0)
        ended = FlowRunFilter(end_time=FlowRunFilterEndTime(before_=before))
        with get_client(sync_client=True) as client:
            count = 0
            while found := client.read_flow_runs(flow_run_filter=ended, limit=200, offset=0 if options.yes else count):
                for run in found if options.yes else ():
                    client.delete_flow_run(run.id)
                count += len(found)
    return f"{count} flow runs of Prefect's history {'deleted' if options.yes else 'can go; --yes deletes them'}"


def _days(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: a number and d (days) or h (hours), such as 30d")
    return float(match[1]) / (24 if match[2] == "h" else 1)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number of bytes, or with a unit, such as 50GiB")
    return int(float(match[1]) * UNITS[match[2]])
