"""Image-text pairs as a kind of training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tasks.artefacts import read_json
from tasks.eval_sets import open_eval_set
from tasks.modality.base import Baseline, Modality
from tasks.modality.pairs.baselines import cosines, losses
from tasks.modality.pairs.model_configs import check_model, load_model_config
from tasks.modality.pairs.pairs import load_pairs
from tasks.modality.pairs.recipe import PairRecipe
from tasks.modality.pairs.target_check import check_targets
from tasks.modality.pairs.vocabulary import full_vocabulary, used_vocabulary
from tasks.modality.pairs.zero_shot import load_targets
from tasks.pair_catalog import Catalog
from tasks.remote_files import Reader
from tasks.runs import Run
from tasks.sources import reader_of
from tasks.target_options import TargetOptions, TaskOptions
from tasks.task_kinds import is_set
from tasks.units import sheet_fingerprint


class PairModality(Modality):
    """Pictures and captions, for a CLIP."""

    kinds = ("clip",)
    catalog = Catalog
    baselines: ClassVar[Mapping[str, Baseline]] = {
        "loss_filter": Baseline(losses, of_round_0=True),
        "own_clip_filter": Baseline(cosines, of_round_0=True),
    }

    def open(self, run: Run) -> PairRecipe:
        """With the pool at the model's size, kept decoded or not, and the tokens in use."""
        catalog, pool = run.catalog, run.pool
        assert isinstance(catalog, Catalog)
        config = load_model_config(Path(catalog.model.config))
        size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
        pairs = load_pairs(pool, size, catalog.runtime.decoded_disk)
        data = load_targets(catalog.targets, size, reader_of(pool.directory))
        # Not of the tests: the model would depend on them, and another test would be another run.
        texts = [*pairs.texts, *data.target.texts, *data.heldout.texts]
        used = catalog.model.vocabulary == "used"
        vocabulary = used_vocabulary(texts, length) if used else full_vocabulary(length)
        return PairRecipe(run, catalog, pool, pairs.uids, data, pairs, vocabulary, config)

    def check(self, catalog: Catalog, home: Path) -> list[str]:
        """See that the model can be built and the targets read; returns what is read of them, and what is left."""
        check_model(Path(catalog.model.config))
        return check_targets(catalog, home)

    def model_identity(self, catalog: Catalog) -> dict[str, Any]:
        """Of the config what it says, however it is written; without the kind, which came later."""
        return {**catalog.model.model_dump(exclude={"kind"}), "config": read_json(Path(catalog.model.config))}

    def task_identity(self, catalog: Catalog, task: TaskOptions) -> str:
        """Digest of the bytes of a task's sheet or evaluation set, wherever they lie."""
        if is_set(task):
            reader = Reader(catalog.pool.remote)
            return open_eval_set(task.source, task.folder, reader, task.templates is not None).content(reader)
        return sheet_fingerprint(Path(task.source))

    def measured_by(self, targets: TargetOptions) -> dict[str, Any]:
        """The temperature, and how sets are parted."""
        return {"temperature": targets.temperature, "parts": targets.parts.model_dump(mode="json")}
