"""Training records: the `info.pkl` that DataComp's train.py leaves, read without running it.

A pickle can run any code when it is loaded. This reader makes plain values only; whatever else is named in it (paths
are) becomes a stand-in that knows its name and arguments, and nothing is imported.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from tasks.evaluation.datacomp import Scale, scale_config


class InfoError(UserError, ValueError):
    """A file that is no training record."""


class Stranger:
    """What a pickle wanted to be an object of some class: the arguments it gave."""

    def __new__(cls, *arguments: Any) -> Stranger:
        """Keep the arguments."""
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    arguments: tuple[Any, ...]

    def __setstate__(self, state: Any) -> None:
        """Ignore it."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Stranger]:
        """A stand-in for any class or function."""
        return type(name, (Stranger,), {"__module__": module})


def read_train_info(path: Path) -> dict[str, Any]:
    """The record in an `info.pkl`; raises InfoError."""
    try:
        with open(path, "rb") as file:
            record = _Reader(file).load()
    except OSError:
        raise
    except Exception as error:  # pickle raises whatever it likes on damaged bytes
        raise InfoError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("scale_config"), dict):
        raise InfoError(f"{path}: not the info.pkl of train.py: it is a dictionary with scale and scale_config")
    return record


def scale_problems(record: dict[str, Any], scale: Scale) -> list[str]:
    """Where a training differs from what its scale prescribes."""
    problems = []
    if record.get("scale") != scale:
        problems.append(f"the model was trained at scale {record.get('scale')!r}, this is a submission at {scale!r}")
    expected = scale_config(scale).model_dump(exclude={"pool"})
    expected["beta2"] = None if expected["beta2"] == "default" else expected["beta2"]
    found = record["scale_config"]
    return problems + [
        f"the model was trained with {name} {found.get(name)!r}, scale {scale} prescribes {value!r}"
        for name, value in expected.items()
        if found.get(name) != value
    ]
