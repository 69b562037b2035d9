"""Tokens of captions: open_clip's, of whatever text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from tasks.modality.pairs import tokens
from tasks.modality.pairs.tokens import Words, check_merges, merged_by, padded, tokenize
from tasks.modality.pairs.vocabulary import Vocabulary, full_vocabulary, used_vocabulary

THEIRS = SimpleTokenizer()
MERGED = merged_by(THEIRS)
PIECES = (
    "a photo", "DON'T", "it's", "we'll've", "'S", "ſ's", "'ſ", "<start_of_text>", "<END_of_text>", "<ſtart_of_text>",
    "&amp;amp;lt;", "&nbsp;", "&#x27;", "&", "AT&T", "don&rsquo;t", "Ä", "ﬁ", "ﬀ", "İstanbul", "ß", "ǅ", "Ⅷ", "½", "٣",
    "𝟘", "东京", "สวัสดี", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "e\u0301", "â€™", "Ã©", "\x1b[31m", "\x00", "\x1c",
    "\x85", "\xa0", "\u180e", "\u200b", "\u2028", "\u3000", "\ufeff", "\ufffd", "\t", "\r\n", "  ", "!", "!!!", "#1",
    "_a_", "1234567", "x" * 400, "¿¡", "“q”",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text(st.characters(max_codepoint=127), max_size=60),
    st.lists(st.sampled_from([*PIECES, " "]), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from([2, 3, 10, 77]))
@example(["", " ", "\x1c"], 1)
@example(["word " * 5000, "é" * 3000], 77)
@settings(max_examples=80, deadline=None)
def test_ids_are_those_of_open_clip(texts: list[str], length: int) -> None:
    np.testing.assert_array_equal(padded(*tokenize(texts, length), length), THEIRS(texts, length).numpy())


@pytest.mark.slow
def test_every_character_is_as_open_clip_has_it() -> None:
    """Alone, and between letters: whatever a version of Unicode says of it."""
    for first in range(0, 0x30000, 16):
        few = [chr(i) for i in range(first, first + 16) if not 0xD800 <= i < 0xE000]
        texts = [*(few if first < 0x3000 else ()), "".join(f"a{one}b {one}" for one in few)]
        np.testing.assert_array_equal(padded(*tokenize(texts, 300), 300), THEIRS(texts, 300).numpy())


@given(st.text("abcdehilnorstuw'!", min_size=1, max_size=30) | st.text("aé東!", min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_compiled_merges_are_those_of_open_clip(word: str) -> None:
    letters = "".join(THEIRS.byte_encoder[byte] for byte in word.encode())
    assert [piece.value for piece in MERGED.tokenize(letters)] == THEIRS.bpe(letters).split(" ")


def test_merges_whose_order_matters_are_refused() -> None:
    check_merges([("a", "b"), ("ab", "c")], 9)
    for ranked in ([("ab", "c"), ("a", "b")], [("a", "bc"), ("b", "c"), ("ab", "c")]):
        with pytest.raises(AssertionError, match="merge"):
            check_merges(ranked, 9)


@pytest.fixture
def few_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[Words]:
    monkeypatch.setattr(tokens, "KNOWN", 5)
    yield Words()


def test_what_is_known_is_bounded_and_changes_nothing(few_known: Words) -> None:
    texts = [f"word{i % 13} fox{i % 7} over" for i in range(200)]
    assert [few_known(text) for text in texts] == [THEIRS.encode(text) for text in texts]
    assert len(few_known._known) <= 5 and len(few_known.tokenizer.cache) == 2


def test_a_vocabulary_of_the_used_is_that_of_all_texts() -> None:
    texts = ["a photo of a cat", "two dogs!", "東京"]
    whole = np.unique(THEIRS(texts, 6).numpy())
    assert np.array_equal(used_vocabulary(texts, 6).ids, whole)
    halves = used_vocabulary(texts[:1], 6, used_vocabulary(texts[1:], 6).ids)
    assert np.array_equal(halves.ids, whole)
    vocabulary, raw = Vocabulary(whole, 6), THEIRS(texts, 6).numpy()
    assert np.array_equal(vocabulary.compact(raw), vocabulary.tokens(texts))
    assert np.array_equal(vocabulary.ids[vocabulary.tokens(texts)], raw)
    assert np.array_equal(full_vocabulary(6).tokens(texts), raw)
