"""A user's mistake is a class of its own: whatever is given to a command, it ends as one message, no traceback."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from flows.cli import main
from flows.explanations import explanation
from mgd_core.errors import UserError
from testing.eval_lines import lines, written
from tests.flows.broken_inputs import BINARY, broken, files_of, finished_home

ROOT = Path(__file__).parents[2]
NOT_FOR_USERS = {
    "Rejected": "control flow: becomes a row of rejects (tasks.pool.validation)",
    "_Bad": "control flow: becomes a row of rejects (tasks.pool.text_records)",
    "AssertionError": "our own invariant",
    "NotImplementedError": "a method that every subclass has",
    "ArgumentTypeError": "argparse tells it, with the option's name",
}
"""Exception classes that are raised below tasks/ and flows/ and are no UserError, and why."""
CAUGHT = {
    ("tasks/homes/opening.py", "__exit__"): "again what one of the session's threads met",
    ("tasks/modality/texts/questions.py", "_question"): "load_questions adds file and line",
    ("tasks/evaluation/task_groups.py", "group_metrics"): "evaluation names the set",
    ("tasks/census/sidecars.py", "_rows"): "npz_rows makes it Unreadable",
    ("tasks/files/artefacts.py", "read_json"): "reading names the file",
    ("tasks/submission/eval_results.py", "refuse"): "the class is an argument: SubmissionError or ResultsError",
    ("tasks/pool/foreign_json.py", "json_object"): "its callers reject the sample, or name the file",
    ("tasks/modality/pairs/model_configs.py", "_show"): "check_model names the config",
    ("tasks/files/remotes.py", "_raise_worst"): "again what the store raised",
    ("tasks/ranks/group.py", "run_on_ranks"): "again what a rank raised",
    ("tasks/sharding/rows.py", "_group"): "read_rows makes it failures of its rows",
    ("tasks/subset/scores.py", "choose"): "again what the file's reader raised, which DuckDB wraps",
    ("tasks/subset/algebra.py", "_load_file"): "again what the file's reader raised, which DuckDB wraps",
}
"""Functions that raise a plain error to the one function that puts it into a user's words."""
VALIDATORS = {
    "tasks/files/option_types.py": ("_in_float32", "distinct", "_filled", "_printable_place"),
    "tasks/catalog/recipe_options.py": ("_parsed",),
    "tasks/catalog/pair_catalog.py": ("_ascending",),
    "tasks/catalog/pair_targets.py": ("_check_groups",),
    "tasks/catalog/subset_names.py": ("check_subset", "check_blend"),
    "tasks/catalog/device_options.py": ("_device_name",),
    "tasks/catalog/roles.py": ("fit_name", "_fit_test"),
}
"""Functions that pydantic calls for a field: it says which one, and `tasks.catalog.files` in which file."""


def functions(module: ast.Module) -> Iterator[tuple[str, list[str], ast.Raise]]:
    """Every `raise` of a module, with the innermost function around it and that function's decorators."""

    def walk(node: ast.AST, name: str, decorators: list[str]) -> Iterator[tuple[str, list[str], ast.Raise]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, child.name, [ast.unparse(one) for one in child.decorator_list])
            else:
                if isinstance(child, ast.Raise):
                    yield name, decorators, child
                yield from walk(child, name, decorators)

    return walk(module, "", [])


def raised_class(raised: ast.expr, tree: ast.Module, module: object) -> object:
    """The class that a `raise` raises; a function that makes the error is taken for what it says it returns."""
    first, *rest = ast.unparse(raised.func if isinstance(raised, ast.Call) else raised).split(".")
    late = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
    homes = [one.module for one in late if first in [alias.name for alias in one.names]]
    found = getattr(module, first, None) or getattr(importlib.import_module(str((homes or ["builtins"])[0])), first)
    for part in rest:
        found = getattr(found, part)
    if inspect.isfunction(found):
        returns = inspect.get_annotations(found)["return"]
        found = getattr(module, returns) if isinstance(returns, str) else returns
    return found


def unlisted(path: Path) -> list[str]:
    """The raises of a module that a user may meet and that are no UserErrors."""
    relative = path.relative_to(ROOT)
    tree = ast.parse(path.read_text())
    module = importlib.import_module(".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
    again = {one.name for one in ast.walk(tree) if isinstance(one, ast.ExceptHandler)}
    found = []
    for function, decorators, statement in functions(tree):
        raised = statement.exc
        if raised is None or (isinstance(raised, ast.Name) and raised.id in again):
            continue
        if (str(relative), function) in CAUGHT:
            continue
        kind = raised_class(raised, tree, module)
        assert isinstance(kind, type), ast.unparse(raised)
        validates = any("validator" in one for one in decorators) or function in VALIDATORS.get(str(relative), ())
        in_a_validator = kind is ValueError and validates
        if not (issubclass(kind, UserError) or in_a_validator or kind.__name__ in NOT_FOR_USERS):
            found.append(f"{relative}:{statement.lineno}: {kind.__name__}")
    return found


def test_every_raise_is_a_users_mistake_or_listed_with_a_reason() -> None:
    paths = [path for top in ("tasks", "flows") for path in sorted((ROOT / top).rglob("*.py"))]
    assert len(paths) > 100
    assert [line for path in paths for line in unlisted(path)] == []


def mgd(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a command in this process; its exit status and what it said on stderr. A bug is raised."""
    try:
        status = main([str(one) for one in arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, capsys.readouterr().err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a finished home; tests copy what they change."""
    place = tmp_path_factory.mktemp("made")
    finished_home(place)
    return place


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "home", tmp_path / "home")
    return tmp_path / "home"


WHERE: dict[str, tuple[str, Callable[[Path, Path], list[object]]]] = {
    "curate": (".toml", lambda bad, _: ["curate", bad]),
    "census": (".toml", lambda bad, _: ["census", bad]),
    "plan": (".toml", lambda bad, _: ["plan", bad]),
    "smoothness": (".toml", lambda bad, _: ["smoothness", bad]),
    "serve": (".toml", lambda bad, _: ["serve", bad, "--cron", "0 3 * * *"]),
    "attribute": (".toml", lambda bad, _: ["attribute", bad]),
    "schedule": (".toml", lambda bad, _: ["schedule", bad]),
    "poison": (".toml", lambda bad, _: ["poison", bad]),
    "reshard pool": ("", lambda bad, to: ["reshard", bad, "--out", to]),
    "reshard tar": (".tar", lambda bad, to: ["reshard", bad, "--out", to]),
    "reshard subset": (".npy", lambda bad, to: ["reshard", "POOL", "--subset", bad, "--out", to]),
    "reshard Parquet": (".parquet", lambda bad, to: ["reshard", "POOL", "--subset", bad, "--out", to]),
    "subset filter": (".sql", lambda bad, to: ["subset", f'"{bad}"', "--run", "RUN", "--out", to]),
    "subset catalog": (".toml", lambda bad, to: ["subset", "no_filter", "--catalog", bad, "--out", to]),
    "subset pool": (".tar", lambda bad, to: ["subset", "no_filter", "--pool", bad, "--out", to]),
    "subset metadata": (".parquet", lambda bad, to: ["subset", "no_filter", "--metadata", bad, "--out", to]),
    "subset scores": (
        ".parquet",
        lambda bad, to: ["subset", f"score(path='{bad}', size=1)", "--run", "RUN", "--out", to],
    ),
    "score": (".safetensors", lambda bad, to: ["score", bad, "POOL", "--out", to]),
    "evaluate": ("", lambda bad, _: ["evaluate", bad]),
    "submit results": (".jsonl", lambda bad, to: ["submit-folder", "--out", to, "--results", bad]),
    "submit method": (".toml", lambda bad, to: ["submit-folder", "--out", to, "--method", bad]),
    "submit subset": (".npy", lambda bad, to: ["submit-folder", "--out", to, "--subset", bad]),
    "submit pool": ("", lambda bad, to: ["submit-folder", "--out", to, "--pool", bad]),
    "submit shards": ("", lambda bad, to: ["submit-folder", "--out", to, "--shards", bad]),
    "submit info": (".pkl", lambda bad, to: ["submit-folder", "--out", to, "--info", bad]),
}
"""Each argument that names something to read: the suffix of a good one, and the command with a bad one."""


@pytest.mark.parametrize("argument", WHERE)
def test_a_broken_input_ends_as_one_message_that_names_it(
    argument: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix, command = WHERE[argument]
    pool, run = (next((home / name).iterdir()) for name in ("pools", "runs"))
    rest = ["--home", home]
    if argument.startswith("submit"):
        method = 'name="a"\nauthor="b"\nemail="a@b.c"\ntrack="byod"\nhf_username="x"\nhf_repo_name="y"\ntext="t"\n'
        (tmp_path / "method.toml").write_text(method)
        given = {"--results": written(tmp_path / "r.jsonl", lines()), "--method": tmp_path / "method.toml"}
        rest += ["--scale", "small"]
    else:
        given = {}
    for kind, bad in broken(tmp_path / "bad", suffix).items():
        words = [{"POOL": pool, "RUN": run.name}.get(str(word), word) for word in command(bad, tmp_path / "to")]
        words += [word for name, path in given.items() if name not in words for word in (name, path)]
        status, told = mgd(capsys, *words, *rest)
        assert status == 1 and "mgd: " in told and "Traceback" not in told, (kind, told)
        assert bad.name in told or kind == "unreadable", (kind, told)


@pytest.mark.parametrize("form", ["datacomp", "parquet", "jsonl", "webdataset"])
def test_a_place_that_cannot_be_written_is_named(
    form: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = broken(tmp_path / "bad", "")
    for kind in ("below_a_file", "folder"):
        (bad["folder"] / "own").touch()
        status, told = mgd(capsys, "export", "--format", form, "--out", bad[kind], "--home", home)
        assert status == 1 and (tmp_path.name in told or form == "jsonl"), told


def test_a_home_that_is_no_directory_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = broken(tmp_path, "")
    for kind in ("text", "circle", "dangling", "below_a_file"):
        for command in (["runs"], ["sql", "select 1"], ["report"], ["server"], ["subset", "--list"], ["curate", "x"]):
            status, told = mgd(capsys, *command, "--home", bad[kind])
            assert status == 2 and "no place for a home" in told, (kind, command, told)


NUMBERS = {
    "sql select --limit": ("-1", "x", "1.5", "nan", "9" * 30),
    "export --format parquet --round": ("-1", "x", "1.5", "nan", "9" * 30),
    "export --format webdataset --shard-size": ("0", "-1", "x", "inf", "9" * 5000),
    "export --format webdataset --seed": ("-1", "x", "1e3", "9" * 30),
    "reshard p --out o --shard-size": ("0", "-1", "nan", "9" * 30),
    "reshard p --out o --seed": ("-1", "x", "9" * 30),
    "reshard p --out o --workers": ("0", "-1", "x", "9" * 30),
    "reshard p --out o --max-lost": ("-1", "1.5", "nan", "inf", "x", "9" * 5000),
    "reshard p --out o --max-rejects": ("-1", "1.5", "nan", "inf", "x", "9" * 30),
    "reshard p --out o --max-damaged-shards": ("-1", "x", "9" * 30),
    "shard s --out o --shard-size": ("0", "-1", "x", "9" * 30),
    "shard s --out o --image-size": ("0", "-1", "nan", "9" * 30),
    "shard s --out o --encode-quality": ("-1", "x", "9" * 30),
    "shard s --out o --max-aspect-ratio": ("0", "-1", "x", "nan", "inf", "1e300"),
    "shard s --out o --max-rejects": ("-1", "1.5", "nan", "x", "9" * 30),
    "shard s --out o --workers": ("0", "-1", "x"),
    "evaluate s --seed": ("-1", "x", "9" * 30),
    "evaluate s --batch": ("0", "-1", "nan", "9" * 30),
    "smoothness fashion --directions": ("1", "0", "-1", "x", "9" * 30),
    "smoothness fashion --h": ("0", "-1", "nan", "inf", "x", "1e300"),
    "smoothness fashion --lds": ("2", "-1", "x", "9" * 30),
    "submit-folder --out o --results r --method m --scale small --dataset-size": ("0", "-1", "x", "9" * 30),
}


@pytest.mark.parametrize("option", NUMBERS)
def test_a_wrong_number_is_refused_with_the_option_and_what_it_takes(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in NUMBERS[option]:
        *words, name = option.split()
        status, told = mgd(capsys, *words, f"{name}={value}", "--home", tmp_path / "home")
        assert status == 2 and f"argument {name}" in told and "number" in told, (value, told)
    assert not (tmp_path / "home").exists()


def test_unknown_runs_are_told_with_those_that_are_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = next((home / "runs").iterdir()).name
    for run in ("nope", "../x", "a/b", "*", "\0"):
        for command in (["sql", "select 1"], ["report"], ["export", "--format", "parquet"], ["evaluate", "sets"]):
            status, told = mgd(capsys, *command, "--run", run, "--home", home)
            assert status == 1 and "no run" in told and known in told, (command, told)
    status, told = mgd(capsys, "report", "--run", "", "--home", home)
    assert status == 2 and "an empty name" in told


@pytest.mark.parametrize("field", ["", "x", "99 * * * *", "0 3 * *"])
def test_a_wrong_schedule_is_told_before_a_server_starts(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = mgd(capsys, "serve", "fashion", "--cron", field, "--home", tmp_path / "home")
    assert status == 1 and "five fields" in told and not (tmp_path / "home").exists()


def test_damaged_files_of_a_home_are_named_or_not_needed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = next((home / "runs").iterdir()).name
    quick = (["runs"], ["sql", "select * from samples"], ["export", "--format", "datacomp"])
    for path in files_of(home):
        if path.suffix not in (".json", ".parquet"):
            continue
        good = path.read_bytes()
        record = path.suffix == ".json"
        for bad in (b"{}", b"[]", good[: len(good) // 2]) if record else (BINARY, good[: len(good) // 2]):
            path.write_bytes(bad)
            for command in (*quick, ["report"]) if record else quick:
                status, told = mgd(capsys, *command, "--home", home)
                assert status == 0 or path.name in told or run in told, (path, bad[:20], command, told)
        path.write_bytes(good)


def test_what_the_machine_answers_is_put_into_words(tmp_path: Path) -> None:
    with pytest.raises(OSError) as nothing_there:
        (tmp_path / "none").read_text()
    assert explanation(nothing_there.value) == f"{tmp_path / 'none'}: no such file or directory. Check the path"
    assert "pip install nopackage" in str(explanation(ModuleNotFoundError("No module named 'x'", name="nopackage.x")))
    assert "smaller learner.chunk" in str(explanation(MemoryError()))
    lost = str(explanation(BrokenProcessPool("A process in the process pool was terminated abruptly")))
    assert "a worker process of the task runner ended" in lost and "give the same command again" in lost
    refused = type("PrefectHTTPStatusError", (Exception,), {})(
        "Client error '401 Unauthorized' for url 'http://x'\nmore"
    )
    assert "401 Unauthorized' for url 'http://x'). Is PREFECT_API_AUTH_STRING" in str(explanation(refused))
    path = tmp_path / "unreadable"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError) as failing:
        path.read_text()
    assert failing.value.filename is None and str(path) in str(explanation(failing.value))


def test_our_own_faults_are_no_mistakes_of_a_user() -> None:
    for bug in (KeyError("x"), ValueError("x"), ModuleNotFoundError("No module named 'tasks.x'", name="tasks.x")):
        assert explanation(bug) is None


def test_a_bug_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken_function(_: Path) -> str:
        raise KeyError("ours")

    monkeypatch.setattr("tasks.runs.listing.format_runs", broken_function)
    with pytest.raises(KeyError):
        main(["runs", "--home", os.fspath(tmp_path)])
    assert "please report it" in capsys.readouterr().err
