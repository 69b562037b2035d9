"""`mgd poison`: how fragile a training set is, and how its curator would notice."""

from __future__ import annotations

import argparse
from pathlib import Path

from flows.commands import Make
from flows.commands.studies import add_study

POISON = """measure how fragile a study's training set is

How far can a small share of the training pictures pull the trained model down, if whoever supplies them knows the
recipe? Pixels and labels of that share are changed by metagradient ascent on the target loss, beside random noise,
flipped labels and gradient cancelling, and the model is trained again by the study's recipe and by a plain one. For
each changed picture its metagradient under a clean target shows whether a curator would spot it. This is a stress test
of one's own data and recipe: pictures that anyone may contribute deserve such a look before they are trained on."""


def add_poison(make: Make) -> None:
    """Add the command's parser."""
    add_study(make, "poison", POISON, _run, _show)


def _run(options: argparse.Namespace, home: Path) -> Path:
    from flows.poison import run_poison

    return run_poison(options.study, home)


def _show(home: Path, directory: Path) -> str:
    from tasks.tables.published import read

    rows = read(home, directory.name, "poison_effects", 0).to_pylist()
    print(f"{max(row['changed'] for row in rows)} changed samples; accuracy on the test split, and chance to spot one")
    print(f"{'method':<8}{'recipe':<8}{'accuracy':>9}{'drop':>9}{'error':>8}{'loss':>9}{'spotted':>9}")
    for row in rows:
        spotted = f"{row['spotted']:>9.3f}" if row["spotted"] is not None else f"{'':>9}"
        scores = f"{row['test_accuracy']:>9.4f}{row['drop']:>9.4f}{row['drop_error']:>8.4f}{row['test_loss']:>9.3f}"
        print(f"{row['method']:<8}{row['recipe']:<8}{scores}{spotted}")
    return "select uid, label, shown_as, g, place from poisons where method = 'mgd' order by place"
