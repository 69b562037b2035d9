"""What would happen without some training samples? Answered from the influences, and on request by training.

The samples are selected in SQL over the tables of `mgd attribute`: any query whose rows have a column `uid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import duckdb
import numpy as np

from tasks.modality.classification.modality import StudyRun
from tasks.modality.registry import open_study
from tasks.studies.attribution import load_influences, output_names, values_without
from tasks.tables.published import files
from tasks.tables.queries import QueryError, connect
from tasks.tables.sql_locks import check_one_question

SHOWN = 20  # outputs that a table shows


@dataclass(frozen=True)
class Prediction:
    """Change of each output without the selected samples; ``measured`` and the accuracies where it was trained."""

    dropped: int
    of: int
    measure: str
    outputs: list[str]
    before: list[float]
    predicted: list[float]
    measured: list[float] | None = None
    accuracies: tuple[float, float] | None = None


def latest_study(home: Path, name: str | None) -> Path:
    """Directory of the study that was attributed last, or of the named one.

    Raises:
        QueryError: there is none; says how to make one.
    """
    found = [path.parent for path in (Path(home) / "studies").glob(f"*/{StudyRun.record_name}")]
    attributed = [d for d in found if files(home, d.name, "influences") and name in (None, d.name)]
    if not attributed:
        known = ", ".join(sorted(d.name for d in found)) or "none"
        wanted = "no study" if name is None else f"no study '{name}'"
        raise QueryError(f"{home}: {wanted} with influences (studies: {known}). `mgd attribute fashion` makes one")
    return max(attributed, key=lambda d: (d / StudyRun.record_name).stat().st_mtime_ns)


def predict(directory: Path, query: str, train: bool) -> Prediction:
    """Predicted change of the outputs when the samples of ``query`` are dropped; with ``train`` the true one too.

    Raises:
        QueryError: the query fails, has no column uid, or selects nothing, everything, or something else.
    """
    with open_study(directory) as study:
        uids = selected(study.run.home, study.run.id, query)
        known = {uid: i for i, uid in enumerate(study.train.uids)}
        foreign = [uid for uid in uids if uid not in known]
        if foreign or not 0 < len(uids) < len(known):
            told = f", {len(foreign)} of them no training sample (first {foreign[0]})" if foreign else ""
            raise QueryError(f"the query selects {len(uids)} samples{told}; name 1 to {len(known) - 1} of the training")
        dropped = np.zeros(len(known))
        dropped[[known[uid] for uid in uids]] = 1
        g, phi = load_influences(study)
        before = phi.double().numpy()
        change = -g.double().numpy() @ dropped
        measured, accuracies = None, None
        if train:
            values, *both = values_without(study, dropped)
            measured, accuracies = (values - before).tolist(), (both[0], both[1])
        measure, names = study.catalog.attribution.measure, output_names(study)
        return Prediction(len(uids), len(known), measure, names, before.tolist(), change.tolist(), measured, accuracies)


def selected(home: Path, run: str, query: str) -> list[str]:
    """Distinct uids of a query's column `uid`, as 32 hex digits.

    Raises:
        QueryError: with DuckDB's own words, or there is no such column.
    """
    with connect(home, run) as connection:
        try:
            check_one_question(connection, query)
            rows = connection.sql(query)
            if rows is None or "uid" not in rows.columns:
                raise QueryError(f"the query needs a column uid, say: select uid from influences; it is {query!r}")
            found = rows.project("uid").distinct().fetchall()
        except duckdb.Error as error:
            raise QueryError(f"{error}") from None
    return sorted(UUID(str(uid)).hex for (uid,) in found if uid is not None)


def format_prediction(found: Prediction) -> str:
    """A table for a terminal, the outputs that change most first."""
    true = found.measured
    order = np.argsort(-np.abs(found.predicted), kind="stable")[:SHOWN]
    width = max(6, *(len(found.outputs[i]) for i in order))
    unit = "nats" if found.measure == "loss" else "log odds"
    lines = [f"without {found.dropped:,} of {found.of:,} training samples; {found.measure}, {unit}"]
    lines.append(f"{'output':<{width}}{'now':>10}{'predicted':>12}" + (f"{'true':>10}" if true is not None else ""))
    for i in order:
        after = f"{true[i]:>+10.4f}" if true is not None else ""
        lines.append(f"{found.outputs[i]:<{width}}{found.before[i]:>10.4f}{found.predicted[i]:>+12.4f}{after}")
    if len(found.outputs) > SHOWN:
        lines.append(f"... and {len(found.outputs) - SHOWN} more")
    if found.accuracies is not None:
        with_them, without = found.accuracies
        lines.append(f"accuracy on the test split: {with_them:.4f} with them, {without:.4f} without")
    return "\n".join(lines)
