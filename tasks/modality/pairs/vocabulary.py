"""The used part of open_clip's vocabulary.

open_clip's 49,408 token embeddings would be nine tenths of a small model. With `used`, only the tokens that occur in
the pool's captions and the texts of target and held-out get an embedding, not those of tests, which no training reads;
ids keep their order, so the end token stays the largest, which is how CLIP finds the text's last position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.errors import UserError

FULL_SIZE = 49408


class StrangeText(UserError, ValueError):
    """A text with tokens that the run's vocabulary has not."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids in use, ascending, and the length of a text in tokens."""

    ids: npt.NDArray[np.int64]
    context_length: int

    @property
    def size(self) -> int:
        """Rows of the token embedding."""
        return len(self.ids)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Compact token ids (n, context_length) int64 of ``texts``.

        Raises:
            StrangeText: a text has a token outside the vocabulary.
        """
        raw = _tokenize(texts, self.context_length)
        compact = np.searchsorted(self.ids, raw).clip(max=self.size - 1)
        strange = (self.ids[compact] != raw).any(1)
        if strange.any():
            text = texts[int(strange.argmax())]
            raise StrangeText(f"the text {text!r} has tokens that the pool and the target did not when the run began")
        return torch.from_numpy(compact)

    def known_tokens(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """As ``tokens``, but tokens outside the vocabulary are left out; and the number of texts that had any."""
        raw = _tokenize(texts, self.context_length)
        compact = np.searchsorted(self.ids, raw).clip(max=self.size - 1)
        strange = self.ids[compact] != raw
        for row in np.flatnonzero(strange.any(1)):
            kept = compact[row][~strange[row]]
            compact[row] = np.pad(kept, (0, self.context_length - len(kept)))
        return torch.from_numpy(compact), int((strange & (raw > 0)).any(1).sum())


def full_vocabulary(context_length: int) -> Vocabulary:
    """All of open_clip's tokens."""
    return Vocabulary(np.arange(FULL_SIZE), context_length)


def used_vocabulary(texts: Iterable[str], context_length: int) -> Vocabulary:
    """The tokens that occur in ``texts``."""
    return Vocabulary(np.unique(_tokenize(sorted(set(texts)), context_length)), context_length)


def _tokenize(texts: Sequence[str], context_length: int) -> npt.NDArray[np.int64]:
    ids: npt.NDArray[np.int64] = _tokenizer()(list(texts), context_length=context_length).numpy()
    return ids


@cache
def _tokenizer():  # type: ignore[no-untyped-def]  # open_clip is untyped
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
