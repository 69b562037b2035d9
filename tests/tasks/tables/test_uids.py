"""uids: four forms of one identity that sort alike."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.tables.uids import DATACOMP, content_uid, from_words, normalise, to_words, uid_array, uid_bytes, uid_hex

# Zero bytes at either end are what a careless form drops.
Uids = st.lists(st.integers(0, 2**128 - 1) | st.sampled_from([0, 1, 1 << 120, 256, 1 << 64, (1 << 64) - 1]))


@given(Uids)
def test_every_form_leads_back(numbers: list[int]) -> None:
    hexes = [f"{number:032x}" for number in numbers]
    for form in (hexes, [bytes.fromhex(h) for h in hexes], [uuid.UUID(h) for h in hexes], uid_bytes(hexes)):
        array = uid_array(form)
        assert array.type == pa.uuid() and uid_hex(array) == hexes
    assert uid_hex(from_words(to_words(hexes))) == hexes
    assert to_words(hexes).dtype == DATACOMP and [int(h) for h, _ in to_words(hexes)] == [n >> 64 for n in numbers]


@given(Uids)
def test_all_forms_sort_as_the_numbers_do(numbers: list[int]) -> None:
    hexes = [f"{number:032x}" for number in numbers]
    order = np.argsort(uid_bytes(hexes), kind="stable").tolist()
    assert order == sorted(range(len(numbers)), key=numbers.__getitem__)
    assert order == np.argsort(to_words(hexes), kind="stable", order=("f0", "f1")).tolist()


def test_slices_and_chunks_keep_their_values() -> None:
    hexes = [f"{i:032x}" for i in range(5)]
    array = uid_array(hexes)
    assert uid_hex(array.slice(2, 2)) == uid_hex(uid_bytes(array.slice(2, 2))) == hexes[2:4]
    assert uid_hex(pa.chunked_array([array.slice(0, 1), array.slice(3)])) == [hexes[0], *hexes[3:]]


def test_normalising() -> None:
    assert normalise(" ABC ") == "abc".zfill(32)
    assert normalise("0003571d-8500-3fb7-8f77-aabb2c828a1a") == "0003571d85003fb78f77aabb2c828a1a"
    for bad in ("", "xyz", "0" * 33, None, 7, ["a"]):
        with pytest.raises(ValueError, match="not a uid"):
            normalise(bad)


def test_missing_uids_are_refused_where_all_are_needed() -> None:
    with pytest.raises(ValueError, match="1 of 2 uids are missing"):
        uid_bytes([None, "ab"])


def test_content_uid_tells_image_from_text() -> None:
    assert content_uid(b"ab", b"c") != content_uid(b"a", b"bc")
