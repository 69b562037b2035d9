"""Files of tensors in one directory that belong to one traversal.

Each is a safetensors file, written under another name, flushed and renamed, so that a process killed at any instant
leaves it whole or not at all. Its metadata hold the key of the traversal it belongs to and a digest of its tensors;
both are compared on reading. Cost: one pass of the fingerprint (mgd_core.engine.fingerprints) over the bytes each way.

One process at a time may use a directory. What it does not do: keep several versions of a file.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mgd_core.engine.fingerprints import tensors_digest
from mgd_core.errors import UserError
from mgd_core.whole_files import NoRoom, full_disk, move_in

PARTIAL = ".partial"

Tensors = Mapping[str, Tensor]


class ForeignState(UserError, ValueError):
    """A file that belongs to another run, catalog or version."""


class CorruptState(UserError, ValueError):
    """A file whose bytes are not those that were written."""


class StateFiles:
    """The files of a directory, by name. ``key`` stands for all that their contents are a function of.

    Raises:
        ForeignState: one of those that are there belongs to another key; both are named.
        CorruptState: one cannot be read.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.key = Path(directory), key
        for name in self.names():
            with self._opened(name):
                pass
        shutil.rmtree(self.directory / PARTIAL, ignore_errors=True)  # of a process that was killed
        (self.directory / PARTIAL).mkdir(parents=True)

    def names(self) -> list[str]:
        """Names of the files there are."""
        return sorted(path.stem for path in self.directory.glob("*.safetensors"))

    def path(self, name: str) -> Path:
        """Where ``name`` lies."""
        return self.directory / f"{name}.safetensors"

    def write(self, name: str, tensors: Tensors, **facts: str) -> None:
        """Publish tensors, which must be in main memory, and facts about them under ``name``.

        Raises:
            NoRoom: the disk is full; the file of that name, if there is one, is as before.
        """
        partial = self.directory / PARTIAL / name
        tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
        metadata = {**facts, "key": self.key, "digest": tensors_digest(tensors, facts)}
        try:
            save_file(tensors, partial, metadata)
            move_in(partial, self.path(name))
        except (SafetensorError, OSError) as error:
            partial.unlink(missing_ok=True)
            full = self._full(error, name, sum(t.nbytes for t in tensors.values()))
            if full is None:
                raise
            raise full from error

    def read(self, name: str, pinned: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and facts of ``name``, in memory of their own: bits may depend on how memory is aligned.

        Raises:
            FileNotFoundError: there is no such file.
            ForeignState: it belongs to another key; both are named.
            CorruptState: it is damaged; says what to do.
        """
        with self._opened(name) as (file, facts):
            tensors = _tensors(self.path(name), file, pinned)
        path, written, found = self.path(name), facts.pop("digest", "none"), tensors_digest(tensors, facts)
        if written != found:
            raise CorruptState(f"{path}: written with digest {written}, read with {found}. {self._remedy()}")
        return tensors, facts

    def facts(self, name: str) -> dict[str, str]:
        """Facts about ``name``, without its tensors.

        Raises:
            ForeignState, CorruptState: as of :meth:`read`.
        """
        with self._opened(name) as (_, facts):
            return facts

    def remove(self, name: str) -> None:
        """Remove ``name`` if it is there."""
        self.path(name).unlink(missing_ok=True)

    def bytes_present(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.directory.glob("*.safetensors"))

    def check_room(self, needed: int, what: str) -> None:
        """See that ``needed`` bytes fit, those of files that are there already included.

        Raises:
            NoRoom: with the bytes needed and free.
        """
        free, present = shutil.disk_usage(self.directory).free, self.bytes_present()
        if needed > free + present:
            raise NoRoom(
                errno.ENOSPC,
                f"{what} need {needed:,} bytes in {self.directory}, where {present:,} are in use by this run already "
                f"and {free:,} are free. Free some, keep fewer states on disk, or name a roomier place",
            )

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Any, dict[str, str]]]:
        """A file and the facts about it, once its owner is checked."""
        path = self.path(name)
        try:
            with safe_open(path, "pt") as file:
                facts = dict(file.metadata() or {})
                owner = facts.pop("key", "none")
                if owner != self.key:
                    raise ForeignState(
                        f"{path}: belongs to {owner}, this run is {self.key}: another catalog, data or version made it "
                        "and its state would give wrong results here. If nobody needs it, remove "
                        f"{self.directory}; the run then begins again."
                    )
                yield file, facts
        except SafetensorError as error:
            raise CorruptState(f"{path}: not readable ({error}). {self._remedy()}") from error

    def _remedy(self) -> str:
        return (
            "The file was changed after it was written. Remove it and give the same command again: what it held is "
            f"computed again (or remove all of {self.directory} and begin again)."
        )

    def _full(self, error: Exception, name: str, size: int) -> NoRoom | None:
        """An error of writing in the user's words, where a full disk is what it is."""
        code = full_disk(error)
        if code is None:
            return None
        free = shutil.disk_usage(self.directory).free
        return NoRoom(
            code,
            f"{os.strerror(code)}: {name} needs {size:,} bytes, and {free:,} are free in {self.directory}. "
            "What was written before is kept: free some space and give the same command again",
        )


def _tensors(path: Path, file: Any, pinned: bool) -> dict[str, Tensor]:
    """Every tensor of an opened file, read rather than mapped: a mapping's pages would be in memory a second time."""
    tensors = {}
    with path.open("rb") as raw:
        raw.seek(8 + int.from_bytes(raw.read(8), "little"))  # the header's length and the header; then the tensors
        for key in file.offset_keys():
            mapped = file.get_tensor(key)  # for its shape and type; its pages are not touched
            tensors[key] = torch.empty(mapped.shape, dtype=mapped.dtype, pin_memory=pinned)
            raw.readinto(tensors[key].reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return tensors
