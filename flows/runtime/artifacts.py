"""What a flow shows on Prefect's pages: a link to its report, and its result as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact

from flows.runtime.session import server_answers


def show(page: Path, key: str, run: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Link ``page`` under ``key`` and show ``rows``, if a server answers: without one the work is done too."""
    if not server_answers():
        return
    create_link_artifact(link=page.resolve().as_uri(), link_text=f"{key} of {run}", key=key)
    cells = [{name: str(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table=cells, key=f"{key}-table", description=f"{key} of {run}")
