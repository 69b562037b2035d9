"""The command line `mgd`: one command for each thing a user does."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from flows.commands import count, home, local, named, plain_output, shipped, whole
from flows.commands.attributing import add_attribute
from flows.commands.census import add_census
from flows.commands.curating import add_curate, add_serve
from flows.commands.evaluating import add_evaluate
from flows.commands.explore import add_explore
from flows.commands.housekeeping import add_prune, add_remove
from flows.commands.planning import add_plan
from flows.commands.poisoning import add_poison
from flows.commands.resharding import add_reshard
from flows.commands.scheduling import add_schedule
from flows.commands.scoring import add_scoring
from flows.commands.sharding import add_shard
from flows.commands.smoothness import add_smoothness
from flows.commands.submitting import add_submit_folder
from flows.commands.subset import add_subset
from flows.explanations import explanation
from flows.runtime import history_lost
from tasks.files.plurals import harmless
from tasks.homes.working_copies import copy_of

DESCRIPTION = """\
Curate image-text training data by metagradient descent: train, take the exact gradient of a target loss with
respect to every sample's weight, drop what hurts and repeat what helps, round after round."""

EPILOG = f"""\
catalogs that come with mgd: {shipped()}
studies (attribute, schedule, poison): {shipped("studies")}

a first session:
  mgd curate fashion                      curate the pool that comes with mgd; prints a table, writes a report
  mgd sql "select * from comparison"      ask the result anything, in SQL
  mgd export --format datacomp            the subset as DataComp's tools take it

Everything is kept below one directory, ./runs, or what --home or MGD_HOME says. Flows run on a local Prefect server
that mgd looks after by itself; set PREFECT_API_URL to use your own."""

BUG = "mgd: this is a bug of mgd, not a mistake of yours; please report it with the lines below"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. A user's mistake ends as one message, not as a traceback."""
    plain_output()
    options = parser().parse_args(arguments)
    with _noted(options, list(sys.argv[1:] if arguments is None else arguments)) as told:
        status = _run(options, told)
    if arguments is None and history_lost():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)  # or Prefect's threads would look for the dead server, minutes long
    return status


@contextmanager
def _noted(options: argparse.Namespace, words: list[str]) -> Iterator[list[str]]:
    """A command that does more than read is at work in its home, and leaves a line in the home's log: how it ended, and
    what is put into the list that this gives."""
    told: list[str] = []
    if options.run in (_sql, _runs, _server):
        yield told
        return
    from flows.runtime.logs import note_command
    from flows.runtime.session import at_work

    since, failed = time.monotonic(), None
    try:
        with nullcontext() if options.alone else at_work(options.home):
            yield told
    except BaseException as error:
        failed = error
        raise
    finally:
        said = re.sub(r"\?\S*", "?...", shlex.join(words))  # a signed address is a password
        ended = "; ".join(told) or ("a bug" if failed else "done")
        note_command(options.home, f"mgd {said}: {ended} ({time.monotonic() - since:.0f} s)", failed)


def _run(options: argparse.Namespace, noted: list[str]) -> int:
    try:
        with _opened(options):
            return int(options.run(options) or 0)
    except KeyboardInterrupt:
        noted.append("stopped")
        print("stopped; give the same command again to go on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        told = explanation(error)
        if told is None:
            print(BUG, file=sys.stderr)
        if told is None or os.environ.get("MGD_TRACEBACK"):
            raise
        noted.append(told)
        print(f"mgd: {harmless(told)}", file=sys.stderr)
        return 1


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[None]:
    """A home at a URL is brought up to date for a command, and what the command did is sent there; its server is this
    machine's, and is stopped whatever the store says."""
    if copy_of(options.home) is None or options.run is _server:
        yield
        return
    from flows.console import shown_progress
    from tasks.homes.opening import opened

    home = opened(options.home, writes=options.run not in (_sql, _runs))
    with shown_progress():
        home.__enter__()
    try:
        yield
    finally:
        with shown_progress():
            home.__exit__(*sys.exc_info())


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser("mgd", description=DESCRIPTION, epilog=EPILOG, formatter_class=_Raw)
    top.add_argument("--version", action=_Version, nargs=0, help="say which version this is, and stop")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_curate(partial(_command, commands))
    add_shard(partial(_command, commands))
    _read_parsers(commands)
    add_explore(partial(_command, commands))
    _export_parser(commands)
    add_census(partial(_command, commands))
    add_plan(partial(_command, commands))
    add_smoothness(partial(_command, commands))
    add_attribute(partial(_command, commands))
    add_schedule(partial(_command, commands))
    add_poison(partial(_command, commands))
    add_subset(partial(_command, commands))
    add_scoring(partial(_command, commands))
    add_evaluate(partial(_command, commands))
    add_reshard(partial(_command, commands))
    add_submit_folder(partial(_command, commands))
    add_serve(partial(_command, commands))
    add_remove(partial(_command, commands))
    add_prune(partial(_command, commands))
    _server_parser(commands)
    return top


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from tasks.files.package_data import product

        print(f"mgd {product()}")
        parser.exit()


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions as they are."""


def _command(
    commands: argparse._SubParsersAction, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text.split("\n")[0], description=text, formatter_class=_Raw
    )
    made.register("type", Path, local)
    text = "directory of all runs, pools and tables, or a URL (s3://bucket/home) (default: %(default)s)"
    made.add_argument("--home", type=home, default=os.environ.get("MGD_HOME") or "runs", help=text)
    made.set_defaults(run=run, alone=False)
    return made


def _read_parsers(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "sql",
        _sql,
        "ask the tables of a run in SQL (DuckDB)\n\nWithout a query, opens a shell. `select * from views` lists what "
        "there is, `select * from columns` what each\ncolumn means.",
    )
    made.add_argument("query", nargs="?", help='for instance "select * from comparison"')
    made.add_argument("--run", dest="run_id", type=named, help="run to ask, or 'all' (default: the latest)")
    made.add_argument("--format", choices=("table", "csv", "json"), default="table")
    made.add_argument("--limit", type=whole, help="most rows shown (default: 50 of a table, all of csv and json)")
    made.add_argument("--allow-files", action="store_true", help="let SQL read and write any file, not only the tables")
    made = _command(commands, "runs", _runs, "list the runs of this home, newest first")
    made = _command(commands, "report", _report, "write a run's report again and say where it is")
    made.add_argument("--run", dest="run_id", type=named, help="run (default: the latest)")


def _export_parser(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "export",
        _export,
        "write a run's subset for others to use\n\n"
        "  datacomp    .npy of u8,u8 records, sorted, repeats kept: what DataComp's resharder takes (verified)\n"
        "  parquet     uid and count\n"
        "  jsonl       the samples themselves, of a pool of texts: prompt, completion, what else it had\n"
        "  webdataset  shards with the samples themselves, globally shuffled, copies apart",
    )
    made.add_argument("--format", choices=("datacomp", "parquet", "jsonl", "webdataset"), required=True)
    made.add_argument("--out", type=Path, help="file or directory to write (default: in the run's directory)")
    made.add_argument("--run", dest="run_id", type=named, help="run (default: the latest)")
    made.add_argument("--round", type=count, help="round whose counts to take (default: the chosen one)")
    made.add_argument("--shard-size", type=whole, default=10_000, help="samples a shard (webdataset)")
    made.add_argument("--seed", type=count, default=0, help="seed of the shuffle (webdataset)")
    made.add_argument("--overwrite", action="store_true", help="replace another export in --out (webdataset)")


def _server_parser(commands: argparse._SubParsersAction) -> None:
    text = "the local Prefect server of this home: is it up, where is its page, stop it"
    made = _command(commands, "server", _server, text)
    made.add_argument("action", choices=("status", "start", "stop"), nargs="?", default="status")


def _sql(options: argparse.Namespace) -> int:
    if options.query is None:
        from tasks.tables.sql_shell import sql_shell

        failed = sql_shell(options.home, options.run_id, allow_files=options.allow_files)
        return int(failed > 0 and not sys.stdin.isatty())
    from tasks.tables.query_output import run_sql

    how = (options.format, options.limit, options.allow_files)
    run_sql(options.home, options.query, options.run_id, sys.stdout, *how)
    return 0


def _runs(options: argparse.Namespace) -> int:
    from tasks.runs.listing import format_runs

    print(format_runs(options.home))
    return 0


def _report(options: argparse.Namespace) -> int:
    from tasks.report.reports import write_report
    from tasks.runs.listing import readable_run

    print(write_report(options.home, readable_run(options.home, options.run_id)))
    return 0


def _export(options: argparse.Namespace) -> int:
    from tasks.export.reshard import ReshardOptions
    from tasks.runs.listing import export_run
    from tasks.tables.run_folders import latest_run

    run = options.run_id or latest_run(options.home)
    how = ReshardOptions(shard_size=options.shard_size, seed=options.seed, overwrite=options.overwrite)
    print(export_run(options.home, run, options.format, options.out, options.round, how))
    return 0


def _server(options: argparse.Namespace) -> int:
    from flows.runtime.server import ensure_server, format_status, server_status, stop_server

    home = options.home.resolve()
    if options.action == "stop":
        print("stopped" if stop_server(home) else "no server was running")
    elif options.action == "start":
        print(ensure_server(home).removesuffix("/api"))
    else:
        print(format_status(server_status(home)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
