"""Catalogs: what is refused, and what the message says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.catalog.catalogs import CatalogError, check_sources, find_catalog, load_catalog
from tasks.curation.begin import begin_run
from tasks.files.package_data import CATALOGS
from tasks.modality.pairs.zero_shot import load_task
from tasks.modality.registry import open_recipe
from tasks.modality.texts.recipe import TextRecipe
from tasks.pool.pools import build_pool
from testing.small_catalog import CATALOG as PAIRS
from testing.small_catalog import small_catalog
from testing.small_texts import CATALOG as TEXTS
from testing.small_texts import small_texts


def written(tmp_path: Path, old: str, new: str) -> Path:
    path = tmp_path / "mine.toml"
    text = (CATALOGS / "fashion.toml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("path", sorted(CATALOGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_catalogs_that_come_with_mgd_are_valid(path: Path) -> None:
    assert load_catalog(path).name == path.stem


def test_a_typo_names_key_file_and_nearest_valid_key(tmp_path: Path) -> None:
    path = written(tmp_path, "learning_rate =", "lerning_rate =")
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    message = str(caught.value)
    assert str(path) in message
    assert "'learner.lerning_rate'" in message and "did you mean 'learning_rate'?" in message
    assert "'learner.learning_rate' is missing" in message


def test_an_unknown_key_without_a_neighbour_lists_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"valid keys here: .*max_rejects"):
        load_catalog(written(tmp_path, "[pool]", "[pool]\nzzz = 1"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 64", "steps = 0", "learner.steps"),
        ("warmup = 10", "warmup = 100", "longer than the training"),
        ("window_start = 8", "window_start = 64", "descent.window_start = 64 lies behind the training"),
        ('rule = "exchange"', 'rule = "exchnge"', "'sign', 'exchange' or 'confident'"),
        ("steps = 64", "steps = ", "not valid TOML"),
        ("rounds = ", 'plan = "binomial"\nrounds = ', "needs 'slots'"),
        ("rounds = ", 'plan = "segments"\nslots = 2\nrounds = ', "needs 'disk_states'"),
        ("rounds = ", "memory = 1.0\nrounds = ", "unknown key .descent.memory.; it is now called .descent.momentum."),
        ("rounds = ", 'plan = "auto"\nrounds = ', "needs 'device_memory'"),
        ("rounds = ", 'plan = "auto"\ndevice_memory = "1GB"\nslots = 2\nrounds = ', "no use for 'slots'"),
        ("rounds = ", 'plan = "kary"\narity = 1\nrounds = ', "arity' = 1: .*greater than or equal to 2"),
        ("rounds = ", "slots = 3\nrounds = ", "'keep_all' has no use for 'slots'"),
        ("rounds = ", 'plan = "segments"\nslots = 2\ndisk_states = 57\nrounds = ', "the window has 56 states only"),
    ],
)
def test_bad_values_are_explained(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_catalog(written(tmp_path, old, new))


def test_paths_are_relative_to_the_catalog() -> None:
    catalog = load_catalog(find_catalog("fashion"))
    assert catalog.pool.source == str(CATALOGS / "pools" / "fashion")
    assert Path(catalog.model.config).is_file()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CatalogError, match="emoji, fashion"):
        find_catalog("fasion")


def test_a_missing_source_says_how_to_get_it(tmp_path: Path) -> None:
    path = written(tmp_path, 'source = "pools/fashion"', 'source = "nowhere"\nhow_to_get = "Ask Ann."')
    with pytest.raises(CatalogError, match=r"pool.source .*nowhere is not there. Ask Ann."):
        check_sources(load_catalog(path))
    check_sources(load_catalog(find_catalog("emoji")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate = 1e-3", "learning_rate = inf", "learner.learning_rate.*finite"),
        ("learning_rate = 1e-3", "learning_rate = nan", "learner.learning_rate.*finite"),
        ("learning_rate = 1e-3", "learning_rate = 0", "learner.learning_rate.*greater than 0"),
        ("learning_rate = 1e-3", "learning_rate = 1e-300", "learner.learning_rate.*float32"),
        ("weight_decay = 0.01", "weight_decay = inf", "learner.weight_decay.*finite"),
        ("weight_decay = 0.01", "b1 = 1.0", "learner.b1.*less than 1"),
        ("weight_decay = 0.01", "eps = 1e-60", "learner.eps.*float32"),
        ("steps = 64", "steps = true", "learner.steps.*true and false"),
        ("steps = 64", "steps = 1000000000000", "learner.steps.*less than or equal"),
        ("p = 1.0", "p = 0", "descent.p.*greater than 0"),
        ("p = 1.0", "p = 1.5", "descent.p.*less than or equal to 1"),
        ("select = ", "seed = -1\nselect = ", "descent.seed.*greater than or equal to 0"),
        ("select = ", "seed = 100000000000000000000\nselect = ", "descent.seed.*less than or equal"),
        ("rounds = ", 'plan = "auto"\ndevice_memory = 0\nrounds = ', "descent.device_memory.*greater than 0"),
        ("seeds = [101, 102, 103]", "seeds = []", "comparison.seeds.*empty"),
        ("seeds = [101, 102, 103]", "seeds = [101, 101]", "comparison.seeds.*101 stands there twice"),
        ("seeds = [101, 102, 103]", "seeds = [101, -1]", "comparison.seeds.1"),
        ("seeds = [101, 102, 103]", 'seeds = [1]\n[runtime]\ndevice = "cdua"', "runtime.device.*a device is 'cpu'"),
        ("seeds = [101, 102, 103]", 'seeds = [1]\n[runtime]\ndecoded_disk = "-1GB"', "runtime.decoded_disk"),
        ("seeds = [101, 102, 103]", "seeds = [1]\n[smoothness]\nh = inf", "smoothness.h.*finite"),
        ("seeds = [101, 102, 103]", "seeds = [1]\n[smoothness]\nlds_subsets = 2", "lds_subsets.*3 subsets or more"),
        ("seeds = [101, 102, 103]", "seeds = [1]\n[census.limits]\ngap = 1.5", "census.limits.gap"),
        ("seeds = [101, 102, 103]", "seeds = [1]\n[pool.remote]\ntimeout_s = inf", "pool.remote.timeout_s.*finite"),
        ('source = "pools/fashion"', 'source = ""', "pool.source.*names nothing"),
        ('source = "pools/fashion"', "source = []", "pool.source.*empty"),
    ],
)
def test_values_without_a_meaning_are_refused_by_their_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_catalog(written(tmp_path, old, new))


@pytest.mark.parametrize("name", ["target", "heldout", "Held-Out", "a/b", "..", "", "x" * 101, "a\\u0000b", " a"])
@pytest.mark.parametrize("kind", [PAIRS, TEXTS], ids=["pairs", "texts"])
def test_a_test_cannot_take_the_name_of_a_role_or_leave_its_place(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(re.sub(r"\[targets\.tests\.\w+\]", lambda _: f'[targets.tests."{name}"]', kind))
    with pytest.raises(CatalogError, match=r"key 'targets\.tests\."):
        load_catalog(path)


def test_a_test_called_like_the_pool_leaves_the_pools_hidden_states_alone(tmp_path: Path) -> None:
    changes = (
        ("[targets.tests.sums]", "[targets.tests.pool]"),
        ("max_tokens = 16", "max_tokens = 16\ntrained_layers = 1"),
    )
    path, home = small_texts(tmp_path, *changes), tmp_path / "home"
    catalog = load_catalog(path)
    pool = build_pool(catalog.pool.sources, home, catalog.pool.build_options())
    with open_recipe(begin_run(home, path, pool).directory) as bench:
        assert isinstance(bench, TextRecipe)
        assert len(bench.sequences) == 60 and bench.sequences.states is not None
        assert len(bench.sequences.states) == len(bench.sequences.tokens)
        assert list(bench.task_data.tests) == ["pool"] and bench.target_sizes().tests == {"pool": 16}


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ('["a {} {"]', "brace too many"),
        ('["{0}"]', r"has no \{\}"),
        ('["a photo"]', "all classes would read the same"),
        ("[]", "empty"),
        ('["a {}", "a {}"]', "'a {}' stands there twice"),
    ],
)
def test_templates_without_a_sense_are_refused(tmp_path: Path, templates: str, message: str) -> None:
    old = 'templates = ["a photo of a {}", "a picture of a {}"]'
    with pytest.raises(CatalogError, match=f"targets.target.templates.*{message}"):
        load_catalog(written(tmp_path, old, f"templates = {templates}"))


def test_a_template_of_clip_benchmark_is_read_as_one(tmp_path: Path) -> None:
    path = small_catalog(tmp_path, ('classes = "label"\n', 'classes = "label"\ntemplates = ["the {c}, {}"]\n'))
    task = load_task(load_catalog(path).targets.target, 8)  # type: ignore[attr-defined]
    name = task.classes[0].replace("-", " ")
    assert task.class_texts[0] == [f"the {name}, {name}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "catalog is empty"),
        (b"\xef\xbb\xbf", "catalog is empty"),
        ("name = 'é'\n".encode("latin-1"), "line 1 is not text in UTF-8"),
        ("name = 'x'\n".encode("utf-16"), "not text in UTF-8"),
        (b"\x00\x01\x02", "not valid TOML"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"#" * (5 << 20), "too many for the catalog"),
    ],
)
def test_a_file_that_is_no_catalog_is_told_from_one(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        load_catalog(path)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "DIRECTORY"])
def test_a_name_that_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogError, match="come with mgd"):
        find_catalog(str(tmp_path) if name == "DIRECTORY" else name)


def test_a_catalog_is_read_with_a_byte_order_mark_and_in_any_locale(tmp_path: Path) -> None:
    path = written(tmp_path, "description = ", 'description = "Vêtements" #')
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    code = "import sys; from pathlib import Path; from tasks.catalog.catalogs import load_catalog as read\n"
    code += "print(ascii(read(Path(sys.argv[1])).description))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": ""}
    said = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=plain, capture_output=True, text=True, check=True
    )
    assert said.stdout == "'V\\xeatements'\n"


def test_a_terminal_that_lacks_a_character_ends_no_command(tmp_path: Path) -> None:
    words = ["subset", "no_filter", "--catalog", "Vêtements", "--out", "none.npy", "--home", str(tmp_path)]
    command = [sys.executable, "-m", "flows.cli", *words]
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and r"no catalog 'V\xeatements'" in ended.stderr and "Traceback" not in ended.stderr
