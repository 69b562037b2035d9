"""The used part of open_clip's vocabulary.

open_clip's 49,408 token embeddings would be nine tenths of a small model. With `used`, only the tokens that occur in
the pool's captions and the texts of target and held-out get an embedding, not those of tests, which no training reads;
ids keep their order, so the end token stays the largest, which is how CLIP finds the text's last position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.errors import UserError
from tasks.modality.pairs.tokens import padded, tokenize

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

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        """Where each of open_clip's tokens stands among those in use; -1 for the others."""
        places = np.full(FULL_SIZE, -1, np.int64)
        places[self.ids] = np.arange(self.size)
        return places

    def compact(self, raw: npt.NDArray[np.int64]) -> Tensor:
        """Compact ids of open_clip's, all of which are in use."""
        return torch.from_numpy(self._places[raw])

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Compact token ids (n, context_length) int64 of ``texts``.

        Raises:
            StrangeText: a text has a token outside the vocabulary.
        """
        compact = self._places[_tokenize(texts, self.context_length)]
        strange = (compact < 0).any(1)
        if strange.any():
            text = texts[int(strange.argmax())]
            raise StrangeText(f"the text {text!r} has tokens that the pool and the target did not when the run began")
        return torch.from_numpy(compact)

    def known_tokens(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """As ``tokens``, but tokens outside the vocabulary are left out; and the number of texts that had any."""
        return self.known(_tokenize(texts, self.context_length))

    def known(self, raw: npt.NDArray[np.int64]) -> tuple[Tensor, int]:
        """The same of rows of open_clip's ids (n, context_length)."""
        compact = self._places[raw]
        strange = compact < 0
        for row in np.flatnonzero(strange.any(1)):
            kept = compact[row][~strange[row]]
            compact[row] = np.pad(kept, (0, self.context_length - len(kept)))
        return torch.from_numpy(compact), int((strange & (raw > 0)).any(1).sum())


def full_vocabulary(context_length: int) -> Vocabulary:
    """All of open_clip's tokens."""
    return Vocabulary(np.arange(FULL_SIZE), context_length)


def used_vocabulary(texts: Iterable[str], context_length: int, *more: npt.NDArray[np.int64]) -> Vocabulary:
    """The tokens that occur in ``texts``, and ``more`` of open_clip's ids."""
    found = _tokenize(sorted(set(texts)), context_length)
    return Vocabulary(np.unique(np.concatenate([found.reshape(-1), *more])), context_length)


def _tokenize(texts: Iterable[str], context_length: int) -> npt.NDArray[np.int64]:
    """Token ids (n, context_length), 0 after each text's last."""
    return padded(*tokenize(texts, context_length), context_length)
