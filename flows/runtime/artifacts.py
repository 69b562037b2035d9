"""What a flow shows on Prefect's pages: a link to its report, its result as a table, and its rounds as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.runtime.pages import page_url
from flows.runtime.session import server_answers
from tasks.tables.published import files, read


def show(home: Path, page: Path, key: str, run: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Link ``page`` under ``key`` and show ``rows``, if a server answers: without one the work is done too."""
    if not server_answers():
        return
    create_link_artifact(link=page_url(home, page), link_text=f"{key} of {run}", key=key)
    show_table(f"{key}-table", f"{key} of {run}", rows)


def show_table(key: str, title: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Show ``rows`` as a table, if a server answers."""
    if server_answers():
        cells = [{name: str(value) for name, value in row.items()} for row in rows]
        create_table_artifact(table=cells, key=key, description=title)


def round_rows(home: Path, run: str) -> list[dict[str, Any]]:
    """A row a round that is done: losses, samples kept, counts raised and lowered, and seconds."""
    return [_round_row(home, run, number) for number in sorted(files(home, run, "rounds"))]


def _round_row(home: Path, run: str, number: int) -> dict[str, Any]:
    (found,) = read(home, run, "rounds", number).to_pylist()
    shown = {name: f"{found[name]:.4f}" for name in ("train_loss", "target_loss", "heldout_loss", "heldout_accuracy")}
    shown |= {"kept": f"{found['distinct_samples']:,}", "copies": f"{found['total']:,}"}
    seconds = sum(row["seconds"] for row in read(home, run, "timings", number).to_pylist())
    return {
        "round": number,
        **shown,
        "raised": found["raised"],
        "lowered": found["lowered"],
        "seconds": f"{seconds:.1f}",
    }
