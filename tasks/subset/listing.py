"""Filters and saved subsets as the command line lists them, and where a subset of a name is kept."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import fill

from tasks.files.artefacts import read_json
from tasks.subset.algebra import Choice, provenance_path
from tasks.subset.filters import Filter, FilterError, load_filters
from tasks.subset.sources import saved_subset, saved_subsets

SCORE = """score
  The samples of the best scores in a table by uid (Parquet): what `mgd score` wrote under a name, or anybody's. Samples
  without a score are left out; how many is told.
    name (text) = none: What `mgd score` called it.
    path (text) = none: A file; relative ones are below where the expression stands.
    column (text) = score: Its column of scores; not needed where it has one column of numbers only.
    uid (text) = uid: Its column of uids: 32 hex digits, UUID or 16 bytes.
    fraction (number 0..1, share) = none: Share of the scored samples that stays.
    size (whole 1.., samples) = none: Samples that stay.
    threshold (number) = none: Least score that stays, or with lowest the greatest.
    lowest (boolean) = false: The lowest scores are the best.
    exactly one of: name, path
    exactly one of: fraction, size, threshold"""
NAME = re.compile(r"[A-Za-z_]\w*")


def place_for(home: Path, name: str) -> Path:
    """Where to keep a subset under a name; raises FilterError for a name that an expression could not say, or that a
    filter has."""
    if not NAME.fullmatch(name):
        raise FilterError(f"--save {name}: a name is letters, digits and _, and begins with no digit")
    if name in {*load_filters(), "run", "score"}:
        raise FilterError(f"--save {name}: that is the name of a filter; take another")
    return saved_subset(home, name)


def format_filters(home: Path) -> str:
    """Every filter with its parameters, then the subsets saved in the home."""
    parts = [_told(one) for one in load_filters().values()] + [SCORE]
    saved = [f"  {name:<20} {_size(saved_subset(home, name))}" for name in saved_subsets(home)]
    return "\n\n".join(parts) + "\n\nsaved subsets" + ("\n" + "\n".join(saved) if saved else ": none yet (--save NAME)")


def format_choice(choice: Choice) -> str:
    """A subset that was written, and what each operand chose."""
    width = max(len(_name(one)) for one in choice.operands)
    lines = [f"  {_name(one):<{width}}  {one['distinct']:>13,} samples" for one in choice.operands]
    copies = f" ({choice.records:,} with copies, at most {choice.most_copies} of one)" * (
        choice.records > choice.distinct
    )
    share = choice.distinct / choice.of
    told = f"{choice.path}: {choice.distinct:,} of {choice.of:,} samples, {share:.1%}{copies}"
    return "\n".join([*lines, told]) if len(lines) > 1 else told


def _told(one: Filter) -> str:
    lines = [one.name, fill(one.doc, 110, initial_indent="  ", subsequent_indent="  ")]
    for p in one.parameters.values():
        lines.append(f"    {p.name} ({p.told}){'' if p.default == 'required' else f' = {p.default}'}: {p.doc}")
    lines += [f"    exactly one of: {', '.join(group)}" for group in one.exactly_one]
    return "\n".join(lines)


def _name(operand: dict[str, object]) -> str:
    return str(operand.get("filter") or operand["file"])


def _size(path: Path) -> str:
    record = provenance_path(path)
    if not record.is_file():
        return "(no record)"
    told = read_json(record)
    return f"{told['distinct']:>13,} samples of {told['candidates']}: {told['expression']}"
