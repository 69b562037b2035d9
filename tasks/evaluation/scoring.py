"""Zero-shot evaluation: the metrics of a model on a set, as DataComp's evaluation code computes them.

Classification: a class is the mean of its sentences' unit features, renormalised; the answer is the class of the
highest cosine. Retrieval: an image (text) counts when one of its own texts (images) is among the k nearest. Association
(WinoGAViL): as many images as belong to the cue are chosen, and compared as sets. Multilabel: mean average precision,
and the same comparison of sets. One pass over the set; images are decoded and encoded a batch at a time; kept are five
answers a sample, or the features where all meet all (retrieval).

Against DataComp's own code (commit 4a8df19 with clip_benchmark 48de38c and WILDS, in float32) on sets of 90 pictures of
all modes and sizes: the same keys, and values to 3e-8, for plain tasks, Camelyon17, FMoW, iWildCam, GeoDE, Dollar
Street, retrieval, FairFace and UTKFace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from webdataset.filters import batched

from mgd_core.autodiff.objective import unit_rows
from tasks.evaluation import metrics
from tasks.evaluation.datacomp import tasks
from tasks.evaluation.encoders import Encoder
from tasks.evaluation.eval_samples import EvalSample, EvalSetError, Kind
from tasks.evaluation.eval_sets import EvalSet
from tasks.evaluation.fairness import fairness_metrics, fairness_texts
from tasks.evaluation.task_groups import group_errors, group_metrics
from tasks.files.progress import announce
from tasks.files.remote_files import Reader

ANSWERS = 5
RECALLS = (1, 5, 10)
TEXTS_AT_ONCE = 256
ROWS_AT_ONCE = 1024
MAIN = {"classification": "acc1", "retrieval": "mean_recall@1", "multilabel": "mean_average_precision"}


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on a task: `None` where a metric has no meaning (acc5 with under five classes)."""

    key: str
    metrics: Mapping[str, float | None]
    samples: int
    errors: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Of a metric: the samples (of retrieval: questions) that it was measured on, and its standard error by the choice
    of them; none of one that is no mean over samples."""

    @property
    def main(self) -> str:
        """Name of the metric that stands for the task."""
        if self.key in tasks():
            return tasks()[self.key].metric
        return next((name for name in MAIN.values() if name in self.metrics), "avg_jaccard_score")


def evaluate_set(
    found: EvalSet, encoder: Encoder, batch: int = 64, reader: Reader | None = None, any_size: bool = False
) -> Evaluation:
    """All metrics of a set; ``batch``: images encoded at once.

    Raises EvalSetError when the set is damaged, or (unless ``any_size``) is of a task of DataComp's and has another
    number of samples than that.
    """
    size = tasks()[found.key].size if found.key in tasks() else 0
    counted = _counted(found.samples(reader), f"evaluate: {found.key}", size)
    values, samples, errors = KINDS[found.kind](found, counted, encoder, batch)
    if size and samples != size and not any_size:
        raise EvalSetError(
            f"{found.url}: has {samples:,} samples, the test set of task {found.key} has {size:,}; a score over "
            "another set cannot be compared. Fetch it again, or allow any size"
        )
    return Evaluation(found.key, values, samples, errors)


Errors = dict[str, tuple[int, float]]
Values = tuple[dict[str, float | None], int, Errors]
"""Metrics, samples, and of a metric the samples that it is over and its standard error."""


def _classification(found: EvalSet, samples: Iterable[EvalSample], encoder: Encoder, batch: int) -> Values:
    heads = class_features(encoder, found.class_texts())
    ranked, labels, columns = list[Tensor](), list[int](), list[np.ndarray]()
    for group in batched(batch, collation_fn=None)(samples):
        ranked.append(metrics.best(_images(encoder, group) @ heads.T, ANSWERS))
        labels += [int(sample.label or 0) for sample in group]
        columns += [sample.vector for sample in group if sample.vector is not None]
    top, truth = torch.cat(ranked).numpy(), np.array(labels)
    if columns and (len(columns) < len(labels) or len({len(column) for column in columns}) > 1):
        raise EvalSetError(f"{found.url}: only some samples have an npy member, or theirs differ in length")
    first, fifth = metrics.hits(top, truth, 1), metrics.hits(top, truth, 5)
    values: dict[str, float | None] = {
        "acc1": float(first.mean()),
        "acc5": float(fifth.mean()) if len(heads) >= 5 else None,
        "mean_per_class_recall": metrics.mean_per_class_recall(top[:, 0], truth),
    }
    spread = {"acc1": metrics.standard_error(first), "acc5": metrics.standard_error(fifth)}
    per_class = metrics.mean_per_class_error(top[:, 0], truth)
    spread |= {"mean_per_class_recall": per_class, "recall-macro_all": per_class}
    n = len(truth)
    try:
        groups = group_metrics(found.key, top, truth, np.stack(columns) if columns else None)
        values |= groups
        errors = {name: (n, error) for name, error in spread.items() if values.get(name) is not None}
        return values, n, {**errors, **group_errors(groups, n)}
    except ValueError as error:
        raise EvalSetError(f"{found.url}: task {found.key} is scored by groups; {error}") from error


def _multilabel(found: EvalSet, samples: Iterable[EvalSample], encoder: Encoder, batch: int) -> Values:
    heads = class_features(encoder, found.class_texts())
    scores, truth = list[Tensor](), list[Tensor]()
    for group in batched(batch, collation_fn=None)(samples):
        scores.append(_images(encoder, group) @ heads.T)
        truth += [torch.from_numpy(sample.vector).bool() for sample in group]
    all_scores, all_truth = torch.cat(scores), torch.stack(truth)
    sets = [
        metrics.jaccard(metrics.chosen(row, int(own.sum())), own.numpy())
        for row, own in zip(all_scores, all_truth, strict=True)
    ]
    precision = metrics.average_precision(all_scores, all_truth)
    errors = {"avg_jaccard_score": (len(sets), metrics.standard_error(sets))}
    return {"mean_average_precision": precision, "avg_jaccard_score": float(np.mean(sets))}, len(all_truth), errors


def _retrieval(found: EvalSet, samples: Iterable[EvalSample], encoder: Encoder, batch: int) -> Values:
    images, texts, owner = list[Tensor](), list[Tensor](), list[int]()
    count = 0
    for group in batched(batch, collation_fn=None)(samples):
        images.append(_images(encoder, group))
        texts.append(encoded_texts(encoder, [caption for sample in group for caption in sample.captions]))
        owner += [count + i for i, sample in enumerate(group) for _ in sample.captions]
        count += len(group)
    rows, columns, owners = torch.cat(texts), torch.cat(images), torch.tensor(owner)
    own_images = torch.arange(count)
    asked: dict[str, np.ndarray] = {}
    for k in RECALLS:
        asked[f"image_retrieval_recall@{k}"] = _recalled(rows, columns, owners, own_images, k)
        asked[f"text_retrieval_recall@{k}"] = _recalled(columns, rows, own_images, owners, k)
    values: dict[str, float | None] = {name: float(found.mean()) for name, found in asked.items()}
    errors = {name: (len(found), metrics.standard_error(found)) for name, found in asked.items()}
    ways = [asked[f"{way}_retrieval_recall@1"] for way in ("text", "image")]
    # By picture: its own hit, and the mean of its texts' hits. Those of one picture are not independent.
    by_picture = np.bincount(owner, ways[1]) / np.bincount(owner)
    errors["mean_recall@1"] = count, metrics.standard_error(0.5 * (ways[0] + by_picture))
    return {**values, "mean_recall@1": 0.5 * sum(float(way.mean()) for way in ways)}, count, errors


def _association(found: EvalSet, samples: Iterable[EvalSample], encoder: Encoder, batch: int) -> Values:
    scores, sizes = list[float](), list[int]()
    for sample in samples:
        (cue,) = sample.captions[:1]
        text = encoder.texts([f"{'An' if cue[:1].lower() in 'aeiou' else 'A'} {cue.lower()}"])
        truth = np.asarray(sample.vector, bool)
        cosines = (text @ _images(encoder, [sample]).T)[0]
        scores.append(metrics.jaccard(metrics.chosen(cosines, int(truth.sum())), truth))
        sizes.append(len(truth))
    score, size = np.array(scores), np.array(sizes)
    parts: dict[str, np.ndarray] = {"avg_jaccard_score": np.ones(len(size), bool)}
    parts |= {f"jaccard_score_{n}": size == n for n in (5, 6, 10, 12)}
    parts |= {"jaccard_score_5-6": size <= 6, "jaccard_score_10-12": size >= 10}
    met = {name: score[part] for name, part in parts.items() if part.any()}
    errors = {name: (len(own), metrics.standard_error(own)) for name, own in met.items()}
    return {name: float(own.mean()) for name, own in met.items()}, len(scores), errors


def _fairness(found: EvalSet, samples: Iterable[EvalSample], encoder: Encoder, batch: int) -> Values:
    heads = [class_features(encoder, texts) for texts in fairness_texts(found.classes, found.templates)]
    answers, known = list[Tensor](), list[np.ndarray]()
    for group in batched(batch, collation_fn=None)(samples):
        images = _images(encoder, group)
        answers.append(torch.stack([metrics.best(images @ head.T, 1)[:, 0] for head in heads], dim=1))
        known += [sample.vector for sample in group if sample.vector is not None]
    if len({len(columns) for columns in known}) > 1:
        raise EvalSetError(f"{found.url}: npy members differ in length")
    values: dict[str, float | None] = dict(fairness_metrics(torch.cat(answers).numpy(), np.stack(known)))
    return values, len(known), group_errors(values, len(known))


KINDS: Mapping[Kind, Callable[[EvalSet, Iterable[EvalSample], Encoder, int], Values]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "retrieval": _retrieval,
    "association": _association,
    "faces": _fairness,
}


def class_features(encoder: Encoder, class_texts: list[list[str]]) -> Tensor:
    """Unit vector of each class, (classes, d): the mean of its sentences' unit features, renormalised."""
    features = encoded_texts(encoder, [text for texts in class_texts for text in texts])
    return unit_rows(features.view(len(class_texts), len(class_texts[0]), -1).mean(1))


def encoded_texts(encoder: Encoder, texts: list[str]) -> Tensor:
    """Unit features (n, d) of texts, some at a time."""
    parts = [encoder.texts(texts[at : at + TEXTS_AT_ONCE]) for at in range(0, len(texts), TEXTS_AT_ONCE)]
    return torch.cat(parts)


def _images(encoder: Encoder, samples: list[EvalSample]) -> Tensor:
    """Unit features of all images of some samples; raises EvalSetError at one that cannot be decoded."""
    pixels = [encoder.pixels(picture.image) for sample in samples for picture in sample.pictures()]
    return encoder.images(torch.stack(pixels))


def _recalled(rows: Tensor, columns: Tensor, row_owner: Tensor, column_owner: Tensor, k: int) -> np.ndarray:
    """Which rows have one of their own among the k nearest columns, some rows at a time."""
    found = []
    for at in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(at, at + ROWS_AT_ONCE)
        found.append(metrics.recalled(rows[part] @ columns.T, row_owner[part, None] == column_owner[None], k))
    return torch.cat(found).numpy()


def _counted(samples: Iterable[EvalSample], what: str, size: int) -> Iterator[EvalSample]:
    """The same samples, told to whoever watches."""
    for number, sample in enumerate(samples, 1):
        yield sample
        announce(what, number, size or number + 1)  # the last one is not known before
