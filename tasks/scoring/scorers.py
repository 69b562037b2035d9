"""Scorers: a model of g apart from the run that it was distilled from, in one safetensors file.

Its tensors are the regression's and, unless it reads cheap columns only, the models that looked at the run's pool, so a
pool that nobody probed can be looked at alike. The file's metadata hold the rest as JSON: which features, by which
means and scales, of which run, and how well the model did on samples that it had not seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mgd_core.descent.ridge import Ridge
from mgd_core.errors import UserError
from tasks.files.artefacts import canonical_json, publish_bytes
from tasks.files.export_files import check_place, told_writing
from tasks.modality.base import Seen, Sight
from tasks.modality.recipe import Ids
from tasks.modality.registry import MODALITIES
from tasks.pool.record import PoolRecord
from tasks.scoring.features import Layout, Vector, stretches
from tasks.scoring.numbers import numbers_of

FORMAT = 1
START = b'{"__metadata__":{"mgd"'
"""How a scorer begins, behind eight bytes."""
RIDGE = ("mean", "scale", "weights")


class ScorerError(UserError, ValueError):
    """A scorer that cannot be distilled, read or used; says why."""


@dataclass(frozen=True)
class Scorer:
    """A model of g and what it reads; ``told``: where it came from and how good it is, for people."""

    kind: str
    layout: Layout
    model: Ridge
    sight: Sight | None
    told: dict[str, Any]

    def check(self, pool: PoolRecord) -> None:
        """See that it can score a pool, and make what it reads of it; raises FeatureError."""
        self.layout.check(numbers_of(pool), str(pool.directory))
        for one in self.sight.prepared(pool) if self.sight else ():
            one.ensure()

    def scores(self, pool: PoolRecord, ids: Ids) -> Vector:
        """Scores (m,) of a pool's samples by positions: what is expected of their g, the sign turned, so that the
        highest are the best."""
        own, found = numbers_of(pool), np.empty(len(ids))
        for at in stretches(len(ids)):
            seen = self.sight.of(pool, ids[at]) if self.sight else Seen()
            known = {number.name: own[number.name][ids[at]] for number in self.layout.own}
            rows = torch.from_numpy(self.layout.rows(seen, known, slice(None)))
            found[at] = -self.model(rows).numpy()
        return found

    def write(self, out: Path) -> None:
        """Write it as a file.

        Raises ScorerError where something else is there, ExportError where it cannot be written.
        """
        tensors = {f"ridge/{name}": getattr(self.model, name) for name in RIDGE}
        described: dict[str, Any] | None = None
        if self.sight is not None:
            seen, described = self.sight.packed()
            tensors |= {f"sight/{name}": one.cpu().contiguous() for name, one in seen.items()}
        record = {"format": FORMAT, "kind": self.kind, "features": self.layout.told(), "sight": described}
        record |= {"level": self.model.level, "penalty": str(self.model.penalty), "told": self.told}
        check_place(out)
        if out.exists() and (not out.is_file() or out.read_bytes()[8 : 8 + len(START)] != START):
            raise ScorerError(f"{out}: is there and is no scorer, so it is not replaced; name another --out")
        with told_writing(out):
            publish_bytes(out, save(tensors, {"mgd": canonical_json(record).decode()}))


def read_scorer(path: Path, device: str = "cpu") -> Scorer:
    """The scorer in a file, its models on ``device``; raises ScorerError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})["mgd"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record["format"] != FORMAT:
            raise ScorerError(f"{path}: a scorer of version {record['format']}, and this mgd reads {FORMAT}")
        told, level, penalty = record["sight"], record["level"], float(record["penalty"])
        sight = None
        if told is not None:
            parts = {name[6:]: one.to(device) for name, one in tensors.items() if name.startswith("sight/")}
            sight = MODALITIES[record["kind"]].unpacked(parts, told)
        mean, scale, weights = (tensors[f"ridge/{name}"] for name in RIDGE)
        model = Ridge(mean, scale, weights, level, penalty)
        return Scorer(record["kind"], Layout.read(record["features"]), model, sight, record["told"])
    except FileNotFoundError:
        raise ScorerError(f"{path}: no such file; `mgd distil` writes one") from None
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        told = " ".join(str(error).split())[:200]
        raise ScorerError(f"{path}: no scorer as `mgd distil` writes them ({type(error).__name__}: {told})") from error
