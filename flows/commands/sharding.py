"""`mgd shard`: pictures and captions in any usual form, as WebDataset shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import Make, budget, count, flow_session, positive, whole

if TYPE_CHECKING:
    from tasks.sharding.options import ShardOptions
    from tasks.sharding.places import Place

TEXT = """write pictures and captions as WebDataset shards, the way img2dataset leaves them

A source is a directory of pictures (captions in a.txt, a.caption or a.json beside a.jpg, or class folders), a listing
(CSV, TSV, JSON lines, Parquet: a column of paths, one of captions), Parquet files with pictures inside, tars, or what
img2dataset left in any of its formats; on this machine or in any fsspec store; several at once are one pool. Pictures
keep their bytes unless a size or a format is asked for. What cannot be used is a row of the shard's table, with the
reason. Stopped or killed, the same command goes on where it was and ends with the same bytes.

  mgd shard photos --out shards
  mgd shard photos more.csv hf/data --out s3://bucket/pool --image-size 256 --resize-mode keep_ratio
  mgd shard trusted --out sets/trusted --evaluation-set classification    a target for mgd curate, of class folders"""

PICTURE = {
    "--image-size": (whole, "pixels of the side that --resize-mode goes by"),
    "--resize-mode": (("no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"), "as img2dataset has them"),
    "--encode-format": (("jpg", "png", "webp"), "what pictures are written as (default: as they are)"),
    "--encode-quality": (count, "of jpg and webp 0 to 100 (default: 95), compression of png 0 to 9"),
    "--min-image-size": (count, "least pixels of the shorter side"),
    "--max-aspect-ratio": (positive, "most that the longer side may be of the shorter one"),
    "--captions": (("auto", "sidecars", "folders", "names"), "where captions of a directory are"),
    "--url-col": (str, "column of a listing that has paths (default: guessed, and told)"),
    "--image-col": (str, "column of a Parquet file that has pictures (default: guessed, and told)"),
    "--caption-col": (str, "column of captions (default: guessed, and told)"),
    "--uid-col": (str, "column of uids (default: uid, else a digest of picture and caption)"),
}
"""Options of `tasks.sharding.options`: type or choices, and help."""


def add_shard(make: Make) -> None:
    """Add the command's parser."""
    made = make("shard", _run, TEXT)
    made.add_argument("sources", nargs="+", metavar="SOURCE", help="directory, file, glob or URL")
    made.add_argument("--out", required=True, help="directory or URL to write")
    made.add_argument("--shard-size", type=whole, default=1000, help="attempts of a shard (default: %(default)s)")
    for name, (kind, text) in PICTURE.items():
        how: dict[str, Any] = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
        made.add_argument(name, help=text, **how)
    text = "sentence around a class, {} where it stands; may be given again (default: a photo of a {})"
    made.add_argument("--template", action="append", dest="templates", metavar="SENTENCE", help=text)
    text = "make smaller pictures larger, too"
    made.add_argument("--resize-all", dest="resize_only_if_bigger", action="store_const", const=False, help=text)
    text = "attempts that may fail: a number, or a share (default: %(default)s)"
    made.add_argument("--max-rejects", type=budget, default=0.01, help=text)
    text = "damaged tars among the sources that are read as far as they can be (default: %(default)s)"
    made.add_argument("--max-damaged-shards", type=count, default=0, help=text)
    text = (
        "write an evaluation set in clip_benchmark's form: classes are folders or captions, or captions are asked for"
    )
    made.add_argument("--evaluation-set", choices=("classification", "retrieval"), default="", help=text)
    text = "bring shards of other sources or options in --out up to date; anything else there is never touched"
    made.add_argument("--overwrite", action="store_true", help=text)
    text = "what carries the tasks (default: %(default)s); no byte depends on it"
    made.add_argument("--runner", choices=("threads", "processes", "ray", "dask"), default="threads", help=text)
    made.add_argument("--workers", type=whole, help="tasks at a time (default: one a core)")


def _run(options: argparse.Namespace) -> int:
    from flows.console import shown_progress
    from tasks.files.remote_files import Reader
    from tasks.sharding.finishing import META, summary
    from tasks.sharding.options import read_options
    from tasks.sharding.places import Place
    from tasks.sharding.sources import find_pictures

    names = [*(name[2:].replace("-", "_") for name in PICTURE), "templates", "resize_only_if_bigger"]
    said = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    how = read_options(said, options.evaluation_set)
    home, place = options.home.resolve(), Place(options.out).below("test" if options.evaluation_set else "")
    with shown_progress():  # mistakes are told before a server is started, and what is done is found without one
        find_pictures(options.sources, Reader(), how)
        done = META in place.files() and _is_done(options, place, how, home)
    if not done:
        with flow_session(home):
            from flows.runtime.runners import run_flow
            from flows.shard import shard

            passed = ("max_rejects", "max_damaged_shards", "overwrite", "runner", "workers", "shard_size")
            given = {name: getattr(options, name) for name in passed} | {"evaluation": options.evaluation_set}
            run_flow(shard, options.sources, options.out, str(home), options=said, **given)
    print(summary(options.out, place.record(META)))
    return 0


def _is_done(options: argparse.Namespace, place: Place, how: ShardOptions, home: Path) -> bool:
    """Whether the place is complete, and of these very sources and options."""
    from tasks.sharding.finishing import finished_meta
    from tasks.sharding.plans import plan_shards

    plan = plan_shards(options.sources, home, how, options.shard_size, evaluation=options.evaluation_set)
    return finished_meta(place, plan) is not None
