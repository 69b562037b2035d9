"""The map of the code holds: imports run downward, in no circle, and none is hidden in a function."""

import pytest

from testing import house


@pytest.fixture(scope="module")
def found() -> list[house.Import]:
    return house.imports(*house.PRODUCT)


def test_no_import_runs_upward(found: list[house.Import]) -> None:
    assert len(found) > 1000 and house.upward(found) == []


def test_no_circle(found: list[house.Import]) -> None:
    assert house.circles(found) == []


def test_the_pipeline_and_the_engine_import_at_the_top_of_a_file(found: list[house.Import]) -> None:
    """Commands import when they run, so that `mgd --help` is quick; mgd_core's surface names what it loads later."""
    assert [one for one in found if one.hidden and one.module.startswith(("tasks", "mgd_core."))] == []


def test_packages_are_those_of_the_table() -> None:
    folders = {path.name for path in (house.ROOT / "tasks").iterdir() if (path / "__init__.py").exists()}
    core = {path.name for path in (house.ROOT / "mgd_core").iterdir() if (path / "__init__.py").exists()}
    assert folders == house.MAY_IMPORT.keys() - {"flows", "mgd_core"}
    assert core == house.CORE_MAY_IMPORT.keys() - {"whole_files", "errors"}


def test_the_table_itself_points_down() -> None:
    for table in (house.MAY_IMPORT, house.CORE_MAY_IMPORT):
        order = list(table)
        for package, below in table.items():
            assert all(order.index(package) < order.index(other) for other in below.split()), package


def test_few_places_ask_for_the_kind_of_data() -> None:
    assert len(house.kind_branches()) <= 3


def test_folders_can_be_looked_over() -> None:
    assert {name: count for name, count in house.folder_sizes().items() if count > 20} == {}
