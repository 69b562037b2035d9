"""open_clip's tokens of captions, at a twenty-fifth of the time its own Python takes.

What a text is made of is left to open_clip itself: its cleaning, its pattern of words, its table of merges. But a text
of printable ASCII without `&` comes out of ftfy and of html's unescape as it went in (their rules are about other
characters, controls and entities), so these are not asked. And what lies between two spaces is looked up, if it came
before: no alternative of the pattern matches a space and none looks around itself, so a text's words are those of its
parts.

Words that come for the first time are merged by Hugging Face's compiled BPE. It takes the pair of the lowest rank, the
leftmost of several, one at a time, where open_clip takes all of one rank before it looks again. That is the same, since
a merge never makes a pair of a lower rank than its own: no rule comes before those that make its two halves, and no two
rules make the same piece (`check_merges`).

Cost: about 6 microseconds a caption of ten words, against 30 of Hugging Face's compiled BPE and 180 of open_clip
(benchmarks.scale); memory for `KNOWN` parts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers.models import BPE

KNOWN = 1 << 18
"""Parts of texts whose tokens are kept, about 200 bytes each; a pool has ever more of them, most of which came once."""
VERSION = 1
Tokens = npt.NDArray[np.uint16]


class Ragged(NamedTuple):
    """Tokens of n texts after each other, and how many each has (n,)."""

    tokens: Tokens
    lengths: Tokens


class Words:
    """The tokens of texts by open_clip's tokenizer of CLIP, without those that begin and end them."""

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.tokenizer: Any = SimpleTokenizer()
        self._merged = merged_by(self.tokenizer)
        self.start, self.end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        self._special = dict(self.tokenizer.cache)
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text."""
        plain = text.isascii() and text.isprintable() and "&" not in text
        ids: list[int] = []
        for part in text.lower().split() if plain else self.tokenizer.clean_fn(text).split(" "):
            ids += self._known.get(part) or self._new(part)
        return ids

    def _new(self, part: str) -> list[int]:
        if len(self._known) >= KNOWN:
            self._known = {}
        own, ids = self.tokenizer, list[int]()
        for word in own.pat.findall(part):
            letters = "".join(own.byte_encoder[byte] for byte in word.encode("utf-8"))
            special = own.encoder[word] if word in self._special else None
            ids += [piece.id for piece in self._merged.tokenize(letters)] if special is None else [special]
        self._known[part] = ids
        return ids


def merged_by(tokenizer: Any) -> BPE:
    """The merges of an open_clip tokenizer, compiled."""
    ranked = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    check_merges(ranked, len(tokenizer.encoder))
    return BPE(vocab=tokenizer.encoder, merges=ranked, end_of_word_suffix="</w>", cache_capacity=0)


def check_merges(ranked: Sequence[tuple[str, str]], size: int) -> None:
    """See that the order in which pairs of different ranks are merged cannot matter: each rule makes a piece that no
    other makes, of pieces that are made before."""
    made = {first + second: rank for rank, (first, second) in enumerate(ranked)}
    assert len(made) == len(ranked) and size > len(ranked), "two merges make the same piece"
    late = [pair for rank, pair in enumerate(ranked) if any(made.get(half, -1) >= rank for half in pair)]
    assert not late, f"a merge comes before what it merges: {late[:3]}"


def tokenize(texts: Iterable[str], context_length: int) -> Ragged:
    """Token ids of ``texts``, each begun and ended, and cut to ``context_length`` with its end kept, as open_clip does;
    what it fills up with zeros is left out."""
    words, tokens, lengths = _words(), array("H"), array("H")
    for text in texts:
        own = words(text)[: max(0, context_length - 2)]
        ids = [words.start, *own, words.end][-context_length:]
        tokens.extend(ids)
        lengths.append(len(ids))
    return Ragged(np.array(tokens, np.uint16), np.array(lengths, np.uint16))


def padded(tokens: Tokens, lengths: Tokens, context_length: int) -> npt.NDArray[np.int64]:
    """Rows of tokens (n, context_length), 0 after each one's last."""
    found = np.zeros((len(lengths), context_length), np.int64)
    found[np.arange(context_length)[None] < lengths[:, None]] = tokens
    return found


@cache
def _words() -> Words:
    return Words()
