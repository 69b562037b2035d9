"""`mgd attribute` and `mgd predict`: whom a classifier's outputs are owed to, and what if it lacked some samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make, named
from flows.commands.studies import add_study
from tasks.homes.working_copies import shown

ATTRIBUTE = """influence of every training sample on named outputs of a study's classifier

Trains once, and differentiates each output (the loss or margin of each class, or of each test picture) by the weight
of every training sample, many outputs in one reverse sweep. --validate trains again without random subsets and reports
how well the influences predict that (LDS: Spearman's rank correlation, with bootstrap intervals). Stopped or killed,
the same command goes on where it was."""

PREDICT = """what would change without some training samples

The samples are those of a query with a column uid over the tables of `mgd attribute`, for instance
  mgd predict "select uid from influences where output = 'shirt' order by g desc limit 20"
--train trains without them and shows the true change beside the predicted one."""


def add_attribute(make: Make) -> None:
    """Add the parsers of both commands."""
    made = add_study(make, "attribute", ATTRIBUTE, _attribute, _show)
    made.add_argument("--validate", action="store_true", help="train again without random subsets")
    made = make("predict", _predict, PREDICT)
    made.add_argument("query", help="SQL that selects the samples to drop: a column uid")
    made.add_argument("--run", dest="run_id", type=named, help="study to ask (default: the latest)")
    made.add_argument("--train", action="store_true", help="also train without them: the true change")


def _attribute(options: argparse.Namespace, home: Path) -> Path:
    from flows.attribute import run_attribute

    return run_attribute(options.study, home, options.validate)


def _show(home: Path, directory: Path) -> str:
    from tasks.tables.published import files, read

    outputs = read(home, directory.name, "outputs", 0).to_pylist()
    print(f"{len(outputs)} outputs of {directory.name}, the mean {outputs[0]['measure']} of their pictures")
    for row in outputs[:10]:
        print(f"  {row['output']:<34}{row['value']:>8.4f}  ({row['pictures']} pictures)")
    if files(home, directory.name, "datamodelling_scores"):
        print("LDS     share   mean   95 % interval   worst output")
        rows = read(home, directory.name, "datamodelling_scores", 0).to_pylist()
        for share in dict.fromkeys(row["share"] for row in rows):
            own = [row for row in rows if row["share"] == share]
            mean, worst = own[-1], min(own[:-1], key=lambda row: row["score"])
            spread = f"{mean['low']:.3f} .. {mean['high']:.3f}"
            print(f"      {share:>7.0%}{mean['score']:>7.3f}  {spread:>14}   {worst['output']} {worst['score']:.3f}")
    query = f"select uid from influences where output = '{outputs[0]['output']}' order by g desc limit 20"
    print(f'predict mgd predict --home {shown(home)} "{query}"')
    return "select * from influence_extremes"


def _predict(options: argparse.Namespace) -> int:
    from flows.runtime.device import free_device
    from tasks.studies.prediction import format_prediction, latest_study, predict

    home = options.home.resolve()
    directory = latest_study(home, options.run_id)
    with free_device(["cpu:0"], directory):
        print(format_prediction(predict(directory, options.query, options.train)))
    return 0
