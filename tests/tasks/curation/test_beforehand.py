"""What is told before anything is trained: home, device, budgets, models, and what a pool is enough for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgd_core.errors import UserError
from mgd_core.models.model_folders import LanguageModelError
from tasks.catalog.catalogs import BaseCatalog, CatalogError, load_catalog
from tasks.curation.beforehand import check_beforehand, check_pool
from tasks.files.package_data import CATALOGS
from tasks.modality.machine import HomeError, check_home
from tasks.modality.pairs.model_configs import check_model, load_model_config
from tasks.pool.record import PoolRecord
from testing.small_catalog import CATALOG, small_catalog
from testing.small_texts import small_texts

VIT = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}


def plain(tmp_path: Path, *changes: tuple[str, str]) -> BaseCatalog:
    """The small catalog, of which nothing but the text is there."""
    text = CATALOG
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "small.toml").write_text(text)
    return load_catalog(tmp_path / "small.toml")


def pool_of(tmp_path: Path, **columns: list[Any]) -> PoolRecord:
    """A pool of which nothing but the samples' table is there."""
    made: PoolRecord = PoolRecord.__new__(PoolRecord)
    object.__setattr__(made, "directory", tmp_path)
    pq.write_table(pa.table(columns), made.samples_path)
    return made


def config(tmp_path: Path, **changes: Any) -> Path:
    """The fashion model's config with keys (`tower__key`) set, or removed with ... as their value."""
    made = json.loads((CATALOGS / "models" / "fashion.json").read_text())
    for name, value in changes.items():
        *place, key = name.split("__")
        section = made[place[0]] if place else made
        section.pop(key, None) if value is ... else section.__setitem__(key, value)
    (tmp_path / "model.json").write_text(json.dumps(made))
    return tmp_path / "model.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg__image_size": [32, 16]}, r"vision_cfg.image_size = \[32, 16\]"),
        ({"vision_cfg__image_size": "32"}, "vision_cfg.image_size = '32'"),
        ({"text_cfg__context_length": 1}, "text_cfg.context_length = 1"),
        ({"embed_dim": ...}, "lacks embed_dim"),
        ({"vision_cfg": []}, "vision_cfg = .* no table"),
        ({"text_cfg__widht": 3}, "did you mean 'text_cfg.width'"),
        ({"vision_cfg__layers": 3}, "'vision_cfg.layers' would change nothing"),
        ({"cast_dtype": "fp16"}, "'cast_dtype' would change nothing"),
        ({"multimodal_cfg": {}}, "CoCa"),
        ({"init_logit_bias": -10}, "SigLIP"),
        ({"custom_text": "yes"}, "custom_text = 'yes'"),
        ({"text_cfg__hf_tokenizer_name": "x"}, "own tokenizer"),
        ({"text_cfg__tokenizer_kwargs": {}}, "own tokenizer"),
        ({"text_cfg__vocab_size": 32_000}, "another tokenizer"),
        ({"vision_cfg__timm_model_pretrained": True}, "nothing is downloaded"),
        ({"vision_cfg__timm_model_name": "test_convnet"}, "timm has .*test_convnext"),
        ({"vision_cfg__timm_model_name": "resnet10t"}, "BatchNorm2d: it couples the rows"),
        ({"vision_cfg__timm_drop_path": 0.1}, "drops activations at random"),
        ({"vision_cfg": {**VIT, "timm_model_name": "x"}}, "'vision_cfg.layers' would change nothing"),
        ({"vision_cfg": {**VIT, "width": 60}}, "open_clip cannot build the model"),
        ({"vision_cfg": {**VIT, "pool_type": "x"}}, "open_clip cannot build the model .*pool_type"),
        ({"vision_cfg": {**VIT, "output_tokens": True}}, "one feature is needed"),
        (
            {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32}},
            "cannot encode a picture of image_size = 32",
        ),
    ],
)
def test_a_model_config_that_cannot_be_used_is_told_by_file_and_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CatalogError, match=rf"^{tmp_path}/model\.json: .*{message}"):
        check_model(config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"vision_cfg__image_size": [32, 32]}, (32, 10)),
        ({"vision_cfg": {k: v for k, v in VIT.items() if k != "image_size"}}, (224, 10)),
        ({"vision_cfg": VIT, "text_cfg__context_length": ...}, (32, 77)),
        ({"vision_cfg": VIT, "custom_text": True}, (32, 10)),
    ],
)
def test_what_open_clip_reads_of_a_config_is_read(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, int]
) -> None:
    path = config(tmp_path, **changes)
    check_model(path)
    read = load_model_config(path)
    assert (read["vision_cfg"]["image_size"], read["text_cfg"]["context_length"]) == size


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe{", b"[" * 100_000])
def test_a_file_that_is_no_model_config_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(CatalogError, match=r"model\.json: .*model config"):
        load_model_config(tmp_path / "model.json")
    with pytest.raises(CatalogError, match="cannot read the model config"):
        load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threads = 1", 'threads = 1\ndevice = "cuda:99"'), "runtime.device = 'cuda:99': there is no such device"),
        (("rounds = 2", 'rounds = 2\nplan = "auto"\ndevice_memory = "900TiB"'), "descent.device_memory"),
        (
            ("rounds = 2", 'rounds = 2\nplan = "auto"\ndevice_memory = "1MiB"\ndisk_space = "900PiB"'),
            "descent.disk_space",
        ),
    ],
)
def test_what_this_machine_lacks_is_told(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        check_beforehand(load_catalog(small_catalog(tmp_path, change)), tmp_path / "home")


def test_a_home_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing"), Path("a\0b")):
        with pytest.raises(HomeError, match="cannot be written to"):
            check_home(home)
    check_home(tmp_path / "new" / "home")


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ([], {"truth_clean": [True] * 20}, "20 samples, fewer than a batch"),
        ([], {"other": [1] * 40}, "no column 'truth_clean'"),
        ([], {"truth_clean": ["false"] * 40}, "is string, not true and false"),
        ([], {"truth_clean": [True, None] * 40}, "empty for 40 samples"),
        ([], {"truth_clean": [True, False] * 20}, "true of 20 samples"),
        ([("p = 0.5", "p = 0.01")], {"truth_clean": [True] * 40}, "no round moves anything"),
        ([("p = 0.5", "p = 0.5\nmax_count = 1")], {"truth_clean": [True] * 40}, "no round moves anything"),
    ],
)
def test_a_pool_that_is_not_enough_is_told(
    tmp_path: Path, changes: list[tuple[str, str]], columns: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(CatalogError, match=message):
        check_pool(plain(tmp_path, *changes), pool_of(tmp_path, **columns))
    check_pool(plain(tmp_path), pool_of(tmp_path, truth_clean=[True] * 40))


def test_a_text_longer_than_the_models_positions_is_told(tmp_path: Path) -> None:
    catalog = load_catalog(small_texts(tmp_path, ("max_tokens = 16", "max_tokens = 33")))
    with pytest.raises(LanguageModelError, match=r"max_tokens = 33: .* has 32 positions"):
        check_beforehand(catalog, tmp_path / "home")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no users here') }}", "no users here"),
        ("{% for m in messages %}{{ m['content' }}{% endfor %}", "TemplateSyntaxError"),
        ("{{ messages[3].content.x }}", "UndefinedError"),
        ("hello", "leaves out what the user says"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_told(tmp_path: Path, template: str, message: str) -> None:
    catalog = load_catalog(small_texts(tmp_path, ("max_tokens = 16", 'max_tokens = 16\ntemplate = "chat"')))
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=message):
        check_beforehand(catalog, tmp_path / "home")
