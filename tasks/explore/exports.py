"""What the page carries off: the samples that a choice shows, or those picked, kept in the home under a name.

`<home>/subsets/NAME.npy` is DataComp's subset file, which `mgd subset` and catalogs know by its name; NAME.parquet and
NAME.jsonl hold the rows of `sample_outcomes` by uid. NAME.sql, beside each, is the filter that chooses the same again.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from tasks.explore.choice import Choice, ChoiceError
from tasks.explore.columns import OUTCOMES
from tasks.explore.explorer import Explorer
from tasks.explore.turns import Turn
from tasks.files.artefacts import publish_bytes, publish_json
from tasks.files.export_files import publishing_over
from tasks.files.option_types import Strict
from tasks.subset.algebra import provenance_path
from tasks.subset.files import write_records
from tasks.subset.filters import FilterError, load_filter
from tasks.subset.listing import place_for
from tasks.tables.query_output import jsonable
from tasks.tables.uids import Bytes16, uid_bytes, uid_hex

MOST_PICKED = 50_000
MOST_NAMED = 2_000
"""Picked samples that a filter names one by one; of more, the subset file is the way to have them again."""
KINDS = {"npy": "datacomp", "parquet": "parquet", "jsonl": "jsonl"}
Hex = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Order(Strict):
    """What to write: all that a choice shows, or of it those picked."""

    choice: Choice
    picked: tuple[Hex, ...] | None = Field(None, max_length=MOST_PICKED)
    format: Literal["npy", "parquet", "jsonl"]
    name: str = Field(max_length=100)


def parsed(text: bytes) -> Order:
    """An order out of JSON; raises ChoiceError."""
    try:
        return Order.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ChoiceError(f"not an export: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error


def export(explorer: Explorer, order: Order, turn: Turn) -> dict[str, Any]:
    """Write it; how many samples, where, and the commands that give the same again.

    Raises FilterError for a name that is none or a filter's, ExportError where something else is in the place,
    ChoiceError where nothing is shown.
    """
    out = place_for(explorer.home, order.name).with_suffix(f".{order.format}")
    uids = _chosen(explorer, order, turn)
    if not len(uids):
        raise ChoiceError("no sample is shown, so there is nothing to export")
    query = _query(explorer, order, uids)
    out.parent.mkdir(parents=True, exist_ok=True)
    with publishing_over(out, KINDS[order.format]) as file:
        if order.format == "npy":
            write_records(file, uids, np.ones(len(uids), np.int64))
        else:
            (_write_parquet if order.format == "parquet" else _write_lines)(explorer, query or "", file, turn)
    operand = _filter(explorer, order, query, out) or out
    told = {"expression": f'"{operand}"', "run": explorer.run, "query": query, "samples": len(uids)}
    publish_json(provenance_path(out), told)
    return {"samples": len(uids), "path": str(out), "commands": _commands(explorer, order, query, operand)}


def _chosen(explorer: Explorer, order: Order, turn: Turn) -> Bytes16:
    """uids, sorted."""
    if order.picked is not None:
        picked = np.unique(uid_bytes(list(order.picked)))
        explorer.frame.positions(picked)
        return picked
    mask = explorer.shown(order.choice, turn)
    return explorer.frame.uids if mask is None else explorer.frame.uids[mask]


def _query(explorer: Explorer, order: Order, uids: Bytes16) -> str | None:
    """The question that gives these uids; None for picked ones that a table could be asked for, but not by name."""
    if order.picked is None:
        return order.choice.query(explorer.columns)
    if len(uids) > MOST_NAMED and order.format == "npy":
        return None
    listed = ", ".join(f"'{uid}'" for uid in uid_hex(uids))
    return f"SELECT uid FROM {OUTCOMES} WHERE uid IN ({listed})"


def _filter(explorer: Explorer, order: Order, query: str | None, out: Path) -> Path | None:
    """Write the filter beside an export; None where the words of the query cannot be one's."""
    if query is None:
        return None
    place = out.with_suffix(".sql")
    words = "were picked" if order.picked is not None else "the page showed"
    publish_bytes(place, f"-- Samples that {words} in `mgd explore {explorer.run}`.\n{query};\n".encode())
    try:
        load_filter(place)
    except FilterError:  # a `$name` or `{name}` in a text, which a filter takes for its parameters
        place.unlink()
        return None
    return place


def _commands(explorer: Explorer, order: Order, query: str | None, operand: Path) -> list[str]:
    of = ["--run", explorer.run, "--home", str(explorer.home)]
    again = ["mgd", "subset", f'"{operand}"', *of, "--save", f"{order.name}_again"]
    return [shlex.join(again), *([shlex.join(["mgd", "sql", *of, query])] if query else [])]


def _rows(query: str) -> str:
    return (
        f"SELECT replace(uid::VARCHAR, '-', '') AS uid, * EXCLUDE (uid, run) FROM {OUTCOMES} "
        f"WHERE uid IN ({query}) ORDER BY sample_outcomes.uid"
    )


def _write_parquet(explorer: Explorer, query: str, file: BinaryIO, turn: Turn) -> None:
    writer = None
    for batch in explorer.frame.batches(_rows(query), turn):
        writer = writer or pq.ParquetWriter(file, batch.schema, compression="zstd")
        writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _write_lines(explorer: Explorer, query: str, file: BinaryIO, turn: Turn) -> None:
    for batch in explorer.frame.batches(_rows(query), turn):
        for row in batch.to_pylist():
            line = {name: jsonable(value) for name, value in row.items()}
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
