"""Whatever is wrong with a picture, a caption or a file ends as a failure with its reason, and good pairs survive."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.picture_defects import fitting, judge_pairs, judge_tars, tar_defects
from testing.picture_sources import FORMS


@pytest.mark.parametrize("form", FORMS)
def test_spoilt_pairs_fail_with_their_reasons_and_take_no_other_with_them(form: str, tmp_path: Path) -> None:
    judged = judge_pairs(form, fitting(form), tmp_path)
    assert (judged.silent, judged.lost) == ("", 0) and judged.good > 5


@pytest.mark.slow
def test_what_is_wrong_with_tars_is_told_when_they_are_cut_anew(tmp_path: Path) -> None:
    for name, one in tar_defects().items():
        judged = judge_tars(one, tmp_path / name)
        assert (judged.silent, judged.lost) == ("", 0), name
