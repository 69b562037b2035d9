"""The page of a study: what was attributed, scheduled and poisoned, each where the study has it; complete in itself.

Template and style are those of a curation's report (`catalogs/report`). Pictures are the study's own, as data URLs; no
script, no network.
"""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from statistics import fmean, stdev
from string import Template
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tasks.artefacts import publish_bytes
from tasks.markup import absent, command, data_table, figure, paragraph, section, text
from tasks.modality.classification.modality import ClassificationRecipe
from tasks.modality.classification.pictures import MEAN, SPREAD
from tasks.modality.registry import open_study
from tasks.poisoning import METHODS, MGD, poisons_of
from tasks.poisons import start_of
from tasks.queries import connect
from tasks.reports import LOOKS
from tasks.schedule_plot import draw_schedules
from tasks.tables import files, read

SHOWN, ZOOM = 8, 56  # pictures in a row, and pixels a side that they are drawn with
EXTREMES = """select output, effect, list(uid order by place) as uids from influence_extremes
group by output, effect order by output, effect"""


def write_study_report(directory: Path) -> Path:
    """Write `report.html` into the study's directory; returns its path."""
    with open_study(directory) as study:
        parts = [made(study) for made in (_attribution, _schedule, _poison)]
        headline = f"<h1>{text(study.catalog.name)}</h1>" + paragraph(study.catalog.description or "A study.")
        template = Template((LOOKS / "page.html").read_text(encoding="utf-8"))
        style = (LOOKS / "style.css").read_text(encoding="utf-8")
        page = template.substitute(
            title=text(f"mgd: {study.run.id}"), style=style, headline=headline, body="\n".join(parts)
        )
        publish_bytes(directory / "report.html", page.encode())
    return directory / "report.html"


def _attribution(study: ClassificationRecipe) -> str:
    if not files(study.run.home, study.run.id, "influences"):
        return section("attribution", "Whom outputs are owed to", absent("Not asked yet: mgd attribute."))
    parts = []
    if files(study.run.home, study.run.id, "datamodelling_scores"):
        rows = [row for row in _read(study, "datamodelling_scores") if row["output"] == "mean"]
        words = "Spearman's rank correlation of predicted and true changes over random subsets; 1 is the same order."
        cells = [[f"{r['share']:.0%}", f"{r['score']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}"] for r in rows]
        table = data_table(["dropped", "LDS", "95 % interval"], cells)
        parts.append(figure("Do influences predict?", table, words, "select * from datamodelling_scores", study.run.id))
    place = {uid: i for i, uid in enumerate(study.train.uids)}
    with connect(study.run.home, study.run.id) as connection:
        for output, effect, uids in connection.execute(EXTREMES).fetchall()[: 2 * SHOWN]:
            chosen = [place[uid.hex] for uid in uids[:SHOWN]]
            told = [study.classes[int(study.train.labels[i])] for i in chosen]
            parts.append(figure(f"{output}: {effect} most", _row(study.train.pixels[chosen], told)))
    return section("attribution", "Whom outputs are owed to", *parts)


def _schedule(study: ClassificationRecipe) -> str:
    if not files(study.run.home, study.run.id, "schedules"):
        return section("schedule", "Learning rates", absent("Not asked yet: mgd schedule."))
    picture = draw_schedules(study.run.home, study.run.id, study.run.directory / "schedule.svg").read_text("utf-8")
    rows, cells = _read(study, "schedule_scores"), []
    for name in dict.fromkeys(row["schedule"] for row in rows):
        own = [[row[column] for row in rows if row["schedule"] == name] for column in ("test_loss", "test_accuracy")]
        cells.append([name, *(f"{fmean(values):.4f} ± {stdev(values):.4f}" for values in own)])
    table = data_table(["schedule", "test loss, nats", "test accuracy"], cells)
    words = "Paler lines are earlier metagradient steps; dashed, the best one-cycle of the grid."
    drawn = figure("From flat to the last step", picture, words, "select * from schedules", study.run.id)
    return section("schedule", "Learning rates", drawn, figure("Trained again with other seeds", table))


def _poison(study: ClassificationRecipe) -> str:
    if not files(study.run.home, study.run.id, "poison_effects"):
        return section("poison", "How fragile the training set is", absent("Not asked yet: mgd poison."))
    words = (
        "A stress test: how far a few changed samples can pull the model down, and whether their metagradient under a "
        "clean target gives them away (spotted: the chance that a changed sample has a higher g than another)."
    )
    cells = []
    for row in _read(study, "poison_effects"):
        spotted = "" if row["spotted"] is None else f"{row['spotted']:.3f}"
        drop = f"{row['drop']:.4f} ± {row['drop_error']:.4f}"
        scores = [f"{row['test_accuracy']:.4f}", drop, f"{row['test_loss']:.3f}"]
        cells.append([row["method"], row["recipe"], *scores, spotted])
    columns = ["method", "recipe", "test accuracy", "drop", "test loss, nats", "spotted"]
    table = data_table(columns, cells, {2, 3, 4, 5})
    parts = [figure("What changed samples do", table, "", "select * from poison_effects", study.run.id)]
    found = [row for row in _read(study, "poisons") if row["method"] == MGD and row["place"] is not None]
    worst = sorted(found, key=lambda row: row["place"])[:SHOWN]
    place = {study.train.uids[at]: i for i, at in enumerate(start_of(study).ids.tolist())}
    chosen = [place[row["uid"].hex] for row in worst]
    told = [f"{row['label']}, shown as {row['shown_as']}, place {row['place']}" for row in worst]
    parts.append(figure("Before the change", _row(start_of(study).pixels[chosen], [row["label"] for row in worst])))
    parts.append(
        figure(
            "After it, the most harmful first", _row(poisons_of(study.run.directory, METHODS[1]).pixels[chosen], told)
        )
    )
    asked = command(study.run.id, "select uid, label, shown_as, g, place from poisons order by place")
    return section("poison", "How fragile the training set is", paragraph(words), *parts, asked)


def _row(pixels: Tensor, told: list[str]) -> str:
    tiles = []
    for picture, words in zip(pixels, told, strict=True):
        values = ((picture * SPREAD + MEAN).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        buffer = io.BytesIO()
        image.resize((ZOOM, ZOOM), Image.Resampling.NEAREST).save(buffer, "PNG")
        data = b64encode(buffer.getvalue()).decode()
        tiles.append(f'<img width="{ZOOM}" height="{ZOOM}" alt="{text(words)}" src="data:image/png;base64,{data}">')
    return f"<p>{' '.join(tiles)}</p>" + paragraph("; ".join(told))


def _read(study: ClassificationRecipe, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read(study.run.home, study.run.id, table, 0).to_pylist()
    return rows
