"""Who reads or exports waits for no server, and for no package of the training: both take seconds to start."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from flows.cli import main
from tests.flows.broken_inputs import finished_home

SLOW = ("torch", "torchvision", "open_clip", "timm", "transformers", "peft", "prefect", "polars", "pandas")
PROGRAM = """
import sys
from flows.cli import main
home, run, out = sys.argv[1:4]
for words in (
    ["runs"], ["sql", "select count(*) from samples"], ["sql", "select * from sample_outcomes", "--format", "json"],
    ["report"], ["export", "--format", "datacomp"], ["export", "--format", "parquet", "--out", out + ".parquet"],
    ["export", "--format", "webdataset", "--out", out], ["subset", "--list"], ["server"],
    ["subset", "no_filter", "--run", run, "--out", out + ".npy"],
):
    status = main([*words, "--home", home])
    met = [name for name in sys.argv[4:] if name in sys.modules]
    assert status == 0 and not met, (words, status, met)
import tasks.explore.serving
assert not {*sys.argv[4:]} & {*sys.modules}, "mgd explore"
"""


def test_reading_and_exporting_imports_nothing_of_the_training_and_starts_no_server(tmp_path: Path) -> None:
    home = finished_home(tmp_path)
    run = next((home / "runs").iterdir()).name
    words = [sys.executable, "-c", PROGRAM, str(home), run, str(tmp_path / "out"), *SLOW]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out.npy").exists() and (tmp_path / "out" / "meta.json").exists()
    assert not (home / ".prefect").exists()


@pytest.mark.parametrize("command", ["curate", "plan", "census", "smoothness", "attribute"])
def test_a_name_that_is_none_is_told_before_anything_is_loaded(command: str) -> None:
    code = "import sys; from flows.cli import main; print(main(sys.argv[1:]), {'pydantic', 'numpy'} & {*sys.modules})"
    words = [sys.executable, "-c", code, command, "fasion"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout == "1 set()\n" and "'fasion': neither a file nor one of those" in ended.stderr


def test_the_help_names_the_catalogs_and_loads_nothing() -> None:
    code = "import sys, flows.cli; print(flows.cli.parser().format_help()); print('pyarrow' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "emoji, fashion" in ended.stdout and ended.stdout.endswith("False\n")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"mgd {version('mgd')}\n"


def test_the_public_names_of_the_engine_are_there_whatever_was_imported_before() -> None:
    code = (
        "import mgd_core.engine.replay, mgd_core as m; from mgd_core import replay, binomial; "
        "print([getattr(m, name) for name in m.__all__])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "<function replay" in ended.stdout and "<module" not in ended.stdout
