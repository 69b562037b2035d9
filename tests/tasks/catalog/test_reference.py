"""The reference of keys, the examples and the glossary: complete, current, and fit to be copied."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.catalog.catalogs import Catalog, CatalogError, check_sources, load_catalog
from tasks.files.package_data import CATALOGS
from tasks.modality.pairs.model_configs import load_model_config
from testing.catalog_reference import KINDS, descriptions, reference, sections

DOCS = CATALOGS.parent / "docs"
EXAMPLES = sorted((CATALOGS / "examples").glob("*.toml"))


def test_the_page_of_keys_is_current() -> None:
    told = "run: python -m testing.catalog_reference > docs/catalog.md"
    assert (DOCS / "catalog.md").read_text("utf-8") == reference(), told


def test_every_key_of_every_catalog_says_what_it_means() -> None:
    nested = {"pool", "learner", "descent", "comparison", "runtime", "targets", "model", "data", "attribution"}
    nested |= {"schedule", "poison", "target", "heldout", "tests", "columns"}
    for kind in KINDS.values():
        for section in sections(kind):
            silent = {name for name, told in descriptions(section).items() if not told} - nested
            assert section.__doc__ and not silent, f"{section.__name__}: {silent}"


def test_every_key_stands_on_the_page() -> None:
    page = reference()
    assert "| `probe_steps` | list of whole number | `[]` | Steps at which candidates enter" in page
    assert '| `device_memory` | bytes, say `"8GiB"` |' in page
    assert "`[targets.tests.NAME]`: as `[targets.target]` above." in page
    assert "| `steps` | whole number ≥ 1" in page and "| *needed* |" in page


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_catalog_whose_data_alone_is_missing(path: Path) -> None:
    catalog = load_catalog(path)
    assert isinstance(catalog, Catalog) and catalog.name == path.stem
    assert load_model_config(Path(catalog.model.config))["embed_dim"] > 0
    with pytest.raises(CatalogError, match=r"pool.source .* is not there. "):
        check_sources(catalog)


def test_the_glossary_explains_the_words_of_the_catalog() -> None:
    text = (DOCS / "glossary.md").read_text("utf-8")
    words = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))
    for word in ("window_start", "surrogate", "momentum", "scale", "movement", "curvature", "probe step", "held-out"):
        assert word in words
