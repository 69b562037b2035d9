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

from tasks.files.artefacts import publish_bytes
from tasks.html.markup import absent, command, data_table, figure, paragraph, section, text
from tasks.modality.classification.modality import StudyBench, opened_study
from tasks.modality.classification.pictures import MEAN, SPREAD
from tasks.report.reports import LOOKS
from tasks.studies.poisoning import METHODS, MGD, poisons_of
from tasks.studies.poisons import start_of
from tasks.studies.schedule_plot import draw_schedules
from tasks.tables.published import files, read
from tasks.tables.queries import connect

SHOWN, ZOOM = 8, 56  # pictures in a row, and pixels a side that they are drawn with
EXTREMES = """select output, effect, list(uid order by place) as uids from influence_extremes
group by output, effect order by output, effect"""


def write_study_report(directory: Path) -> Path:
    """Write `report.html` into the study's directory; returns its path."""
    with opened_study(directory) as bench:
        parts = [made(bench) for made in (_attribution, _schedule, _poison)]
        headline = f"<h1>{text(bench.study.name)}</h1>" + paragraph(bench.study.description or "A study.")
        template = Template((LOOKS / "page.html").read_text(encoding="utf-8"))
        style = (LOOKS / "style.css").read_text(encoding="utf-8")
        page = template.substitute(
            title=text(f"mgd: {bench.id}"), style=style, headline=headline, body="\n".join(parts)
        )
        publish_bytes(directory / "report.html", page.encode())
    return directory / "report.html"


def _attribution(bench: StudyBench) -> str:
    if not files(bench.home, bench.id, "influences"):
        return section("attribution", "Whom outputs are owed to", absent("Not asked yet: mgd attribute."))
    parts = []
    if files(bench.home, bench.id, "datamodelling_scores"):
        rows = [row for row in _read(bench, "datamodelling_scores") if row["output"] == "mean"]
        words = "Spearman's rank correlation of predicted and true changes over random subsets; 1 is the same order."
        cells = [[f"{r['share']:.0%}", f"{r['score']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}"] for r in rows]
        table = data_table(["dropped", "LDS", "95 % interval"], cells)
        parts.append(figure("Do influences predict?", table, words, "select * from datamodelling_scores", bench.id))
    place = {uid: i for i, uid in enumerate(bench.train.uids)}
    with connect(bench.home, bench.id) as connection:
        for output, effect, uids in connection.execute(EXTREMES).fetchall()[: 2 * SHOWN]:
            chosen = [place[uid.hex] for uid in uids[:SHOWN]]
            told = [bench.classes[int(bench.train.labels[i])] for i in chosen]
            parts.append(figure(f"{output}: {effect} most", _row(bench.train.pixels[chosen], told)))
    return section("attribution", "Whom outputs are owed to", *parts)


def _schedule(bench: StudyBench) -> str:
    if not files(bench.home, bench.id, "schedules"):
        return section("schedule", "Learning rates", absent("Not asked yet: mgd schedule."))
    picture = draw_schedules(bench.home, bench.id, bench.directory / "schedule.svg").read_text("utf-8")
    rows, cells = _read(bench, "schedule_scores"), []
    for name in dict.fromkeys(row["schedule"] for row in rows):
        own = [[row[column] for row in rows if row["schedule"] == name] for column in ("test_loss", "test_accuracy")]
        cells.append([name, *(f"{fmean(values):.4f} ± {stdev(values):.4f}" for values in own)])
    table = data_table(["schedule", "test loss, nats", "test accuracy"], cells)
    words = "Paler lines are earlier metagradient steps; dashed, the best one-cycle of the grid."
    drawn = figure("From flat to the last step", picture, words, "select * from schedules", bench.id)
    return section("schedule", "Learning rates", drawn, figure("Trained again with other seeds", table))


def _poison(bench: StudyBench) -> str:
    if not files(bench.home, bench.id, "poison_effects"):
        return section("poison", "How fragile the training set is", absent("Not asked yet: mgd poison."))
    words = (
        "A stress test: how far a few changed samples can pull the model down, and whether their metagradient under a "
        "clean target gives them away (spotted: the chance that a changed sample has a higher g than another)."
    )
    cells = []
    for row in _read(bench, "poison_effects"):
        spotted = "" if row["spotted"] is None else f"{row['spotted']:.3f}"
        drop = f"{row['drop']:.4f} ± {row['drop_error']:.4f}"
        scores = [f"{row['test_accuracy']:.4f}", drop, f"{row['test_loss']:.3f}"]
        cells.append([row["method"], row["recipe"], *scores, spotted])
    columns = ["method", "recipe", "test accuracy", "drop", "test loss, nats", "spotted"]
    table = data_table(columns, cells, {2, 3, 4, 5})
    parts = [figure("What changed samples do", table, "", "select * from poison_effects", bench.id)]
    found = [row for row in _read(bench, "poisons") if row["method"] == MGD and row["place"] is not None]
    worst = sorted(found, key=lambda row: row["place"])[:SHOWN]
    place = {bench.train.uids[at]: i for i, at in enumerate(start_of(bench).ids.tolist())}
    chosen = [place[row["uid"].hex] for row in worst]
    told = [f"{row['label']}, shown as {row['shown_as']}, place {row['place']}" for row in worst]
    parts.append(figure("Before the change", _row(start_of(bench).pixels[chosen], [row["label"] for row in worst])))
    parts.append(
        figure("After it, the most harmful first", _row(poisons_of(bench.directory, METHODS[1]).pixels[chosen], told))
    )
    asked = command(bench.id, "select uid, label, shown_as, g, place from poisons order by place")
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


def _read(bench: StudyBench, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read(bench.home, bench.id, table, 0).to_pylist()
    return rows
