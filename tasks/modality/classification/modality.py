"""Labelled pictures as a kind of training data: what studies are made of."""

from __future__ import annotations

from tasks.modality.base import Modality
from tasks.modality.classification.pictures import Pictures, load_pictures
from tasks.modality.classification.recipe import ClassificationRecipe, StudyRun
from tasks.study_options import Study


class ClassificationModality(Modality):
    """Pictures of known classes, for a classifier; studied, and not curated."""

    kinds = ("mlp", "resnet9", "vit")
    catalog = Study

    def open(self, run: StudyRun) -> ClassificationRecipe:
        """With all pictures on the device."""
        classes, *splits = load_pictures(run.catalog.data)
        device = run.catalog.runtime.device
        placed = [Pictures(s.uids, *(x.to(device) for x in (s.pixels, s.labels))) for s in splits]
        return ClassificationRecipe(run, run.catalog, classes, *placed)
