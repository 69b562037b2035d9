"""Places where shards are written: a directory of this machine, or of any store that fsspec reaches.

A file appears under its name whole: renamed in here, put by one request there, after it was made on this machine's disk
for temporary files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from tasks.files.artefacts import publishing
from tasks.files.export_files import told_writing
from tasks.files.remote_files import Reader
from tasks.files.remotes import is_local, list_files, patiently, store_of


@dataclass(frozen=True)
class Place:
    """A directory, by path or URL."""

    url: str
    reader: Reader = field(default_factory=Reader)

    @property
    def path(self) -> Path | None:
        """Where it is on this machine, if it is."""
        return Path(self.url.removeprefix("file://")) if is_local(self.url) else None

    def files(self) -> dict[str, int]:
        """Size by name of everything in it; none where it is not there."""
        found = list_files(self.url, self.reader.options)
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one.get("size") or 0) for one in found}

    def below(self, folder: str) -> Place:
        """A directory in it."""
        return Place(f"{self.url.rstrip('/')}/{folder}", self.reader) if folder else self

    def address(self, name: str) -> str:
        """Address of a file in it."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """All of a small file; None where there is none."""
        try:
            return self.reader.read(self.address(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def record(self, name: str) -> dict[str, Any]:
        """A record of ours; empty where there is none, or something else of that name."""
        try:
            found = json.loads(self.read(name) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def remove(self, name: str) -> None:
        """Take a file away."""
        if self.path is not None:
            (self.path / name).unlink(missing_ok=True)
            return
        fs, path = store_of(self.address(name))
        patiently(self.address(name), "remove it", self.reader.options, lambda: fs.rm_file(path))

    @contextmanager
    def publishing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write that appears under `name` only when the block ends well, complete."""
        if self.path is not None:
            with told_writing(self.path), publishing(self.path / name) as file:
                yield file
            return
        with tempfile.NamedTemporaryFile(prefix="mgd-shard-") as staged:
            yield cast(BinaryIO, staged)
            staged.flush()
            fs, path = store_of(self.address(name))
            patiently(self.address(name), "write it", self.reader.options, lambda: fs.put_file(staged.name, path))

    def publish(self, name: str, data: bytes) -> None:
        """Publish `data` as the file `name`."""
        with self.publishing(name) as file:
            file.write(data)
