"""The page of a study: what was attributed, scheduled and poisoned, each where the study has it; complete in itself.

Template and style are data (`catalogs/pages`). Pictures are the study's own, as data URLs; no script, no network.
"""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tasks.files.artefacts import publish_bytes
from tasks.html.pages import Figure, Table, render
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.classification.pictures import MEAN, SPREAD
from tasks.modality.registry import open_study
from tasks.studies.poisoning import METHODS, MGD, poisons_of
from tasks.studies.poisons import start_of
from tasks.studies.schedule_plot import schedules
from tasks.tables.published import files, read
from tasks.tables.queries import connect

SHOWN, ZOOM = 8, 56  # pictures in a row, and pixels a side that they are drawn with
EXTREMES = """select output, effect, list(uid order by place) as uids from influence_extremes
group by output, effect order by output, effect"""


def write_study_report(directory: Path) -> Path:
    """Write `report.html` into the study's directory; returns its path."""
    with open_study(directory) as study:
        page = render(
            "study",
            title=f"mgd: {study.run.id}",
            run=study.run.id,
            name=study.catalog.name,
            description=study.catalog.description or "A study.",
            zoom=ZOOM,
            attribution=_attribution(study),
            schedule=_schedule(study),
            poison=_poison(study),
        )
        publish_bytes(directory / "report.html", page.encode())
    return directory / "report.html"


def _attribution(study: ClassificationRecipe) -> dict[str, Any]:
    if not files(study.run.home, study.run.id, "influences"):
        return {}
    scores, extremes = [], []
    if files(study.run.home, study.run.id, "datamodelling_scores"):
        rows = [row for row in _read(study, "datamodelling_scores") if row["output"] == "mean"]
        words = "Spearman's rank correlation of predicted and true changes over random subsets; 1 is the same order."
        cells = [[f"{r['share']:.0%}", f"{r['score']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}"] for r in rows]
        table = Table(["dropped", "LDS", "95 % interval"], cells, [1, 2])
        scores.append(Figure("Do influences predict?", table, words, "select * from datamodelling_scores"))
    place = {uid: i for i, uid in enumerate(study.train.uids)}
    with connect(study.run.home, study.run.id) as connection:
        for output, effect, uids in connection.execute(EXTREMES).fetchall()[: 2 * SHOWN]:
            chosen = [place[uid.hex] for uid in uids[:SHOWN]]
            told = [study.classes[int(study.train.labels[i])] for i in chosen]
            extremes.append((f"{output}: {effect} most", _tiles(study.train.pixels[chosen], told)))
    return {"scores": scores, "extremes": extremes}


def _schedule(study: ClassificationRecipe) -> list[Figure]:
    if not files(study.run.home, study.run.id, "schedules"):
        return []
    rows, cells = _read(study, "schedule_scores"), []
    for name in dict.fromkeys(row["schedule"] for row in rows):
        own = [[row[column] for row in rows if row["schedule"] == name] for column in ("test_loss", "test_accuracy")]
        cells.append([name, *(f"{fmean(values):.4f} ± {stdev(values):.4f}" for values in own)])
    table = Table(["schedule", "test loss, nats", "test accuracy"], cells, [1, 2])
    words = "Paler lines are earlier metagradient steps; dashed, the best one-cycle of the grid."
    drawn = Figure(
        "From flat to the last step", schedules(study.run.home, study.run.id), words, "select * from schedules"
    )
    return [drawn, Figure("Trained again with other seeds", table)]


def _poison(study: ClassificationRecipe) -> dict[str, Any]:
    if not files(study.run.home, study.run.id, "poison_effects"):
        return {}
    cells = []
    for row in _read(study, "poison_effects"):
        spotted = "" if row["spotted"] is None else f"{row['spotted']:.3f}"
        drop = f"{row['drop']:.4f} ± {row['drop_error']:.4f}"
        scores = [f"{row['test_accuracy']:.4f}", drop, f"{row['test_loss']:.3f}"]
        cells.append([row["method"], row["recipe"], *scores, spotted])
    columns = ["method", "recipe", "test accuracy", "drop", "test loss, nats", "spotted"]
    found = [row for row in _read(study, "poisons") if row["method"] == MGD and row["place"] is not None]
    worst = sorted(found, key=lambda row: row["place"])[:SHOWN]
    place = {study.train.uids[at]: i for i, at in enumerate(start_of(study).ids.tolist())}
    chosen = [place[row["uid"].hex] for row in worst]
    told = [f"{row['label']}, shown as {row['shown_as']}, place {row['place']}" for row in worst]
    table = Table(columns, cells, [2, 3, 4, 5])
    return {
        "effects": Figure("What changed samples do", table, "", "select * from poison_effects"),
        "before": _tiles(start_of(study).pixels[chosen], [row["label"] for row in worst]),
        "after": _tiles(poisons_of(study.run.directory, METHODS[1]).pixels[chosen], told),
        "sql": "select uid, label, shown_as, g, place from poisons order by place",
    }


def _tiles(pixels: Tensor, told: list[str]) -> list[tuple[str, str]]:
    """Pictures as data URLs, each with its words."""
    tiles = []
    for picture, words in zip(pixels, told, strict=True):
        values = ((picture * SPREAD + MEAN).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        buffer = io.BytesIO()
        image.resize((ZOOM, ZOOM), Image.Resampling.NEAREST).save(buffer, "PNG")
        tiles.append((f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}", words))
    return tiles


def _read(study: ClassificationRecipe, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read(study.run.home, study.run.id, table, 0).to_pylist()
    return rows
