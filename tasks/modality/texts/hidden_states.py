"""Hidden states below the trained layers: computed once a run, kept in a file that any process maps.

They never change where only the last layers are trained, so a training step costs those layers and nothing else. Cost:
one forward pass of the frozen part over pool and targets, in the catalog's precision; 4 bytes x width a token of disk.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from mgd_core.models.causal_lm import Stem
from mgd_core.models.model_folders import CausalLmOptions, LanguageModelError, build_stem
from tasks.catalog.recipe_options import RuntimeOptions
from tasks.files.artefacts import digest, publishing
from tasks.files.progress import announce
from tasks.modality.texts.sequences import Sequences
from tasks.runs.run import Run

AT_ONCE = 32  # samples of a forward pass; of similar length, so that little is filled up


def with_states(run: Run, built: CausalLmOptions, name: str, found: Sequences) -> Sequences:
    """The sequences with their hidden states, where the catalog trains the last layers only; else as they are.

    ``name`` is what they are called; the file goes by what they are, since a test may be called anything.
    """
    if built.trained_layers is None:
        return found
    content = digest([digest(x.tobytes()) for x in (found.tokens, found.starts)])
    path = run.work("hidden-states", f"{content}.npy")
    if not path.exists():
        _compute(built, run.catalog.runtime, name, found, path)
    return found.with_states(np.load(path, mmap_mode="r"))


def _compute(built: CausalLmOptions, runtime: RuntimeOptions, name: str, sequences: Sequences, path: Path) -> None:
    stem = _stem(built, runtime.device)
    needed, free = 4 * stem.width * len(sequences.tokens), shutil.disk_usage(path.parent).free
    if needed > free:
        raise LanguageModelError(
            f"hidden states of '{name}' take {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free in "
            f"{path.parent}. Make room, or leave model.trained_layers out (every step then runs all layers)"
        )
    with publishing(path) as file:
        _write(file, sequences, stem, runtime, name)


@lru_cache(maxsize=1)
def _stem(options: CausalLmOptions, device: str) -> Stem:
    stem = build_stem(options)
    assert stem is not None
    return stem.to(device)


def _write(file: BinaryIO, sequences: Sequences, stem: Stem, runtime: RuntimeOptions, name: str) -> None:
    width, device, lowered = stem.width, runtime.device, runtime.precision == "bfloat16"
    shape = (len(sequences.tokens), width)
    np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    first, order = file.tell(), np.argsort(sequences.lengths, kind="stable")
    for at in range(0, len(order), AT_ONCE):
        ids = order[at : at + AT_ONCE]
        tokens, inside = sequences.padded(ids)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=lowered):
            states = stem(tokens.to(device)).float().cpu().numpy()
        for row, sample in enumerate(ids):
            file.seek(first + int(sequences.starts[sample]) * 4 * width)
            file.write(states[row][inside[row]].tobytes())
        announce(f"hidden states: {name}", min(at + AT_ONCE, len(order)), len(order))
