"""The tokens of a pool's captions: made once for a pool and a context length, in columns that are mapped.

Two bytes a token and eight a caption of disk, however long the context; a batch fills its own rows up. Which tokens
occur is found on the way, so the vocabulary of a run needs no second look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from tasks.files.artefacts import publishing, reading
from tasks.modality.pairs.tokens import VERSION, Ragged, Tokens, tokenize
from tasks.modality.prepared import Prepared
from tasks.pool.columns import Ids, PoolColumns, mapped
from tasks.pool.record import PoolRecord

AT_ONCE = 1 << 14
"""Captions that are held while they are taken from the table."""


class CaptionTokens(Prepared):
    """open_clip's token ids of captions by position, cut to ``context_length``."""

    what: ClassVar[str] = "tokens of the captions"
    at_least: ClassVar[int] = 1 << 18

    def __init__(self, columns: PoolColumns, pool: PoolRecord, context_length: int) -> None:
        content = pool.samples_digest
        super().__init__(columns, pool.directory / f"tokens-clip-{VERSION}-{context_length}-{content[:12]}")
        self.context_length, self._content, self._samples = context_length, content, pool.samples_path

    @property
    def key(self) -> str:
        """The pool, the tokenizer and the length."""
        return f"tokens {VERSION} {self.context_length} {self._content}"

    def write(self, number: int, start: int, stop: int) -> None:
        """The tokens of a stretch of captions."""
        with reading(self._samples), pq.ParquetFile(self._samples) as file:
            found = [tokenize(texts, self.context_length) for texts in _captions(file, start, stop)]
        with publishing(self.part(number)) as part:
            np.save(part, np.concatenate([one.lengths for one in found]))
            np.save(part, np.concatenate([one.tokens for one in found]))

    def gather(self) -> dict[str, Any]:
        """One column of tokens, where each caption's begin, and which tokens there are."""
        n, seen = len(self.columns), np.zeros(np.iinfo(np.uint16).max + 1, bool)
        starts = np.zeros(n + 1, np.int64)
        for number, (start, stop) in enumerate(self.parts):
            starts[start + 1 : stop + 1] = self._read(number).lengths
        shortest = int(starts[1:].min(initial=self.context_length))
        np.cumsum(starts, out=starts)
        with publishing(self.directory / "tokens.npy") as file:
            shape = {"descr": "<u2", "fortran_order": False, "shape": (int(starts[-1]),)}
            np.lib.format.write_array_header_2_0(file, shape)
            for number in range(len(self.parts)):
                tokens = self._read(number).tokens
                seen[tokens] = True
                file.write(tokens.tobytes())
        with publishing(self.directory / "starts.npy") as file:
            np.save(file, starts)
        seen[0] |= shortest < self.context_length  # what rows are filled up with
        return {"used": np.flatnonzero(seen).tolist()}

    def opened(self) -> TokenColumns:
        """The columns, made where they are not."""
        self.ensure()
        tokens, starts = (mapped(self.directory / f"{name}.npy") for name in ("tokens", "starts"))
        return TokenColumns(tokens, starts, np.array(self.record["used"], np.int64), self.context_length)

    def _read(self, number: int) -> Ragged:
        with reading(path := self.part(number)), open(path, "rb") as file:
            lengths = np.load(file)
            return Ragged(np.load(file), lengths)


@dataclass(frozen=True)
class TokenColumns:
    """Tokens of n captions, mapped: after each other, where each begins (n + 1,), and which there are, ascending."""

    tokens: Tokens
    starts: Ids
    used: Ids
    context_length: int

    def rows(self, ids: Ids) -> Ids:
        """Token ids (len(ids), context_length) of positions, 0 after each caption's last."""
        starts, lengths = self.starts[ids], self.starts[ids + 1] - self.starts[ids]
        inside = np.arange(self.context_length)[None] < lengths[:, None]
        found = np.zeros(inside.shape, np.int64)
        found[inside] = self.tokens[(starts[:, None] + np.arange(self.context_length)[None])[inside]]
        return found


def _captions(file: pq.ParquetFile, start: int, stop: int) -> Iterator[list[str]]:
    """Captions from position ``start`` to before ``stop``; reads the row groups that hold them."""
    at = 0
    for group in range(file.num_row_groups):
        first, at = at, at + file.metadata.row_group(group).num_rows
        if first < stop and start < at:
            for rows in file.iter_batches(AT_ONCE, row_groups=[group], columns=["text"]):
                skipped = min(max(0, start - first), rows.num_rows)
                yield rows["text"].slice(skipped, max(0, stop - first - skipped)).to_pylist()
                first += rows.num_rows
                if first >= stop:
                    break
