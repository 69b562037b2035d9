"""What a run's rounds are a function of: its catalog without what cannot change them, and what the files it names hold.

The comparison and the tests come after the rounds and change none of them, so they are no part of it: a run whose
rivals, seeds or tests change keeps its name and its rounds. Their own units are keyed by what they are
(`tasks.curation.comparison`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.catalog.catalogs import BaseCatalog, Catalog
from tasks.catalog.target_options import TaskOptions
from tasks.catalog.text_catalog import TextCatalog
from tasks.evaluation.eval_sets import is_eval_set, open_eval_set
from tasks.files.artefacts import digest, file_digest, read_json
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions, is_local
from tasks.files.sources import fingerprint
from tasks.pool.index_jobs import sheet_fingerprint
from tasks.pool.text_files import find_texts


def identity(catalog: BaseCatalog, home: Path) -> dict[str, Any]:
    """The catalog without descriptions, comparison and tests, where files lie, and how work is spread; with digests of
    what it names."""
    places = {"source", "how_to_get", "metadata", "remote"}
    idle: Any = {
        "description": True,
        "census": True,
        "smoothness": True,
        "comparison": True,
        "targets": {"tests": True, "parts": {"test"}},  # a test's share lies behind those of target and held-out
        "pool": places,
        "descent": {"checkpoint_seconds", "checkpoint_steps"},
        "runtime": {"runner", "workers", "readers", "decoded_disk", "batch_cache"},
    }
    content = catalog.model_dump(mode="json", exclude=idle)
    start = content["descent"].pop("start")
    if start is not None:
        from tasks.subset.sources import identity as of_subset  # which may name runs

        content["descent"]["start"] = of_subset(start, home)
    if isinstance(catalog, Catalog):
        content["model"] = {
            **catalog.model.model_dump(exclude={"kind"}),
            "config": read_json(Path(catalog.model.config)),
        }
        for task in _task_dicts(content):
            task["source"] = digest_of_task(TaskOptions(**task), catalog.pool.remote)
    if isinstance(catalog, TextCatalog):
        content["model"]["folder"] = _digest_of_folder(Path(catalog.model.folder))
        for task in _task_dicts(content):
            task["source"] = _digest_of_texts(task["source"], Reader(catalog.pool.remote))
    return content


def identity_of_test(catalog: BaseCatalog, name: str) -> str:
    """What a test's result is a function of, beside the model: its options and the contents of its files, and how it is
    measured; equal for equal ones, whatever the test is called."""
    if isinstance(catalog, TextCatalog):
        questions, asked = catalog.targets.tests[name], catalog.targets
        content = _digest_of_texts(questions.source, Reader(catalog.pool.remote))
        how: dict[str, Any] = {"loss": asked.loss, "likelihood": asked.likelihood}
        return digest([questions.model_dump(mode="json", exclude={"source"}), content, how])
    assert isinstance(catalog, Catalog)
    task, shown = catalog.targets.tests[name], catalog.targets
    how = {"temperature": shown.temperature, "parts": shown.parts.model_dump(mode="json")}
    content = digest_of_task(task, catalog.pool.remote)
    return digest([task.model_dump(mode="json", exclude={"source"}), content, how])


def digest_of_task(task: TaskOptions, remote: RemoteOptions) -> str:
    """Digest of the bytes of a task's sheet or evaluation set, wherever they lie."""
    if is_eval_set(task.source):
        reader = Reader(remote)
        return open_eval_set(task.source, task.folder, reader, task.templates is not None).content(reader)
    return sheet_fingerprint(Path(task.source))


def _task_dicts(content: dict[str, Any]) -> list[dict[str, Any]]:
    targets: dict[str, Any] = content["targets"]
    return [targets["target"], targets["heldout"]]


def _digest_of_folder(folder: Path) -> str:
    """Of the names and bytes of a model's files."""
    return digest({path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()})


def _digest_of_texts(source: str, reader: Reader) -> str:
    """Of the bytes of local files; of the stores' stamps of others."""
    urls = find_texts(source, reader.options).urls
    return digest([file_digest(Path(url)) if is_local(url) else fingerprint(url, reader) for url in urls])
