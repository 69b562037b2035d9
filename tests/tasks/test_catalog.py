"""Catalogs: what is refused, and what the message says."""

from pathlib import Path

import pytest

from tasks.catalog import CATALOGS, CatalogError, check_sources, find_catalog, load_catalog


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
        ("window_start = 8", "window_start = 64", "outside the differentiated window"),
        ('rule = "exchange"', 'rule = "exchnge"', "'sign' or 'exchange'"),
        ("steps = 64", "steps = ", "not valid TOML"),
        ("rounds = ", 'plan = "binomial"\nrounds = ', "needs 'slots'"),
        ("rounds = ", 'plan = "segments"\nslots = 2\nrounds = ', "needs 'disk_states'"),
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
