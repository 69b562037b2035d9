"""Evaluation sets of one's own pictures: what clip_benchmark's form has beside the tars.

OUT/test/0.tar, ...; OUT/test/nshards.txt            as `evaluation.eval_sets` reads them
OUT/classnames.txt, OUT/zeroshot_classification_templates.txt     of classes; the sentences are there to be edited
OUT/dataset_type.txt                                 retrieval
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.sharding.options import Evaluation
from tasks.sharding.places import Place

SENTENCES = ("a photo of a {c}",)


def write_set_files(place: Place, kind: Evaluation, classes: Sequence[str]) -> None:
    """Write the files of a set that say what it asks; sentences that are there stay."""
    if kind == "retrieval":
        place.publish("dataset_type.txt", b"retrieval\n")
        return
    place.publish("classnames.txt", "".join(f"{name}\n" for name in classes).encode())
    if place.read("zeroshot_classification_templates.txt") is None:
        place.publish("zeroshot_classification_templates.txt", "".join(f"{one}\n" for one in SENTENCES).encode())
