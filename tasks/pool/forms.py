"""Forms of samples: how a kind of data lies in files, which are found, and read once into rows of the samples table.

A form is a value that units of work carry along, so that whoever builds a pool need not know what is in it. Pairs are
here; texts are `text_records.TextColumns`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tasks.files.option_types import Strict
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.files.source_patterns import TARS, Files, find_sources, find_tars
from tasks.pool.shards import ShardIndex, index_shard
from tasks.tables.schemas import SAMPLES

PLACES = ("image_", "text_", "json_", "width", "height")
NO_MEMBERS = dict.fromkeys(name for name in SAMPLES.names if name.startswith(PLACES))
"""The columns of a row that say where image, caption and json member lie, for samples that have none."""


class SampleForm(Strict, ABC):
    """One kind of samples, as files hold them."""

    kind: ClassVar[str]
    """What a pool's record calls its samples."""
    version: ClassVar[int] = 1
    """Changes whenever equal files would give other rows than before."""
    names: ClassVar[tuple[str, ...]]
    """Patterns of its files' names."""
    one_file: ClassVar[str] = "file"
    has_pictures: ClassVar[bool] = False
    """Then the source may be a sheet of tiles as well, and metadata beside the files is joined by uid."""

    def find(self, source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
        """The files of ``source``, each once; raises SourceError when one names nothing."""
        hint = f"A pool of {self.kind} is {', '.join(self.names)}: a file, a directory of them, a glob, or a URL"
        return find_sources(source, self.names, options, self.kind, hint)

    @abstractmethod
    def index(self, url: str, name: str, reader: Reader) -> ShardIndex:
        """The samples and rejects of a file; ``name`` is what the `shard` column says instead of the URL."""

    def identity(self) -> dict[str, Any]:
        """What the rows are a function of, beside the files."""
        return {self.kind: self.model_dump(mode="json")}


class PairForm(SampleForm):
    """Image-text pairs in WebDataset tars."""

    kind = "pairs"
    version = 3
    names = TARS
    one_file = "tar"
    has_pictures = True

    def find(self, source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
        """The tars of ``source``."""
        return find_tars(source, options)

    def index(self, url: str, name: str, reader: Reader) -> ShardIndex:
        """One sequential read, and one decode an image."""
        return index_shard(url, name, reader)

    def identity(self) -> dict[str, Any]:
        """Nothing, so that pools keep the names they had before there were other forms."""
        return {}
