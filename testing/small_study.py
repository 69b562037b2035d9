"""A real, tiny study for tests: 60 pictures of the embedded fashion sheet, 8 pixels a side."""

from __future__ import annotations

from pathlib import Path

from tasks.files.package_data import CATALOGS

STUDY = f"""
name = "small"
[data]
source = "{CATALOGS / "pools" / "fashion"}"
where = "truth_clean"
examples = 60
target_examples = 60
test_examples = 40
side = 8
[model]
width = 8
norm = "none"
[learner]
steps = 6
batch = 16
learning_rate = 1e-2
eps_root = 1e-4
[attribution]
shares = [0.1]
retrainings = 12
together = 4
draws = 100
[schedule]
points = 3
steps = 2
grid_peaks = [1e-2, 2e-2]
grid_warmups = [0.2]
[poison]
share = 0.1
steps = 2
[runtime]
threads = 1
"""


def small_study(directory: Path, *changes: tuple[str, str]) -> Path:
    """Write the study's catalog into ``directory``; ``changes`` replace text of it. Returns its path."""
    text = STUDY
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = directory / "small.toml"
    path.write_text(text)
    return path
