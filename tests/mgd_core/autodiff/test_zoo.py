"""Layers and models are exact against naive autograd, or refused before the first step by their true reason."""

import pytest

from testing import zoo_layers, zoo_models
from testing.exactness_zoo import Case, Ways, examine, zoo_figures

CHUNKS: Ways = (("chunks", 3, False),)
BOTH: Ways = (("large", None, False), ("small", None, True))


@pytest.mark.parametrize("case", zoo_layers.few(), ids=lambda case: case.name)
def test_a_layer_is_exact_in_chunks_or_refused_before_the_first_step(case: Case):
    check(case, CHUNKS)


WHOLE = [case for case in zoo_layers.DEFECTS if case.reason is None and case.name[:2] in ("D1", "D2", "D3", "D4", "D6")]


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_what_was_wrong_once_is_exact_by_both_ways(case: Case):
    check(case, BOTH)


@pytest.mark.parametrize("case", zoo_models.few(), ids=lambda case: f"{case.kind} {case.name}")
def test_a_model_is_exact_in_chunks_or_refused_before_the_first_step(case: Case):
    check(case, CHUNKS)


def check(case: Case, ways: Ways) -> None:
    outcome = examine(case, ways, steps=2)
    assert outcome.what == ("exact" if case.reason is None else "refused"), outcome.told


def test_the_zoo_is_as_large_as_it_says():
    kinds = [case.kind for case in (*zoo_layers.cases(), *zoo_models.cases())]
    assert kinds.count("layer") >= 80 and kinds.count("open_clip") >= 16 and kinds.count("timm") >= 25
    names = [(case.kind, case.name) for case in (*zoo_layers.cases(), *zoo_models.cases())]
    assert len(set(names)) == len(names)


def test_a_wrong_answer_and_another_reason_are_counted_as_wrong():
    exact, refused = zoo_layers.cases()[0], next(c for c in zoo_layers.DEFECTS if c.reason)
    swapped = [Case("layer", "exact", exact.build, "couples"), Case("layer", "refused", refused.build, None)]
    figures = zoo_figures([examine(case, CHUNKS, steps=2) for case in swapped])
    assert figures["wrong"] == 2 and figures["refused_late"] == 0
