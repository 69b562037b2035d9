"""Targets seen before any work: what is read of each and what is left, and whether a picture stands in two of them.

Leaves `<home>/targets/<key>.parquet`, a row a picture of the target, the held-out target and the tests: by what it is
known (`decoding`), and where it lies. Its key is a digest of what the catalog says of them and of their files' sizes
and stamps, so the same question is answered at once the next time. Cost, the first time: every picture of them decoded.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.catalog.evaluation_folder import tasks_below
from tasks.catalog.pair_catalog import Catalog
from tasks.catalog.target_options import TaskOptions
from tasks.catalog.task_kinds import check_keys
from tasks.evaluation.eval_sets import is_eval_set, open_eval_set
from tasks.files.artefacts import digest, publishing
from tasks.files.remote_files import Reader
from tasks.modality.pairs.multitask.loading import load_told
from tasks.pool.decoding import VERSION
from tasks.pool.index_jobs import sheet_fingerprint
from tasks.pool.sheets import open_sheet
from tasks.tables.schemas import TARGET_PICTURES

SIZE = 8
"""Pixels to which pictures are scaled where only their identity is wanted."""
NOTES = b"notes"


def check_targets(catalog: Catalog, home: Path) -> list[str]:
    """Sentences on what is read of targets and tests, and what is left.

    Raises:
        CatalogError: one cannot be used, a key of one does nothing, or a picture stands in two of target, held-out
        target and tests.
        EvalSetError: an evaluation set cannot be used as it is.
    """
    notes = (pq.read_schema(target_pictures(catalog, home)).metadata or {}).get(NOTES, b"").decode()
    folder = catalog.targets.evaluation_sets
    return [*(() if folder is None else tasks_below(folder).told), *notes.splitlines()]


def target_pictures(catalog: Catalog, home: Path) -> Path:
    """The table of all pictures of a catalog's target, held-out target and tests."""
    check_keys(catalog.targets)
    reader = Reader(catalog.pool.remote)
    files = [_fingerprint(task, reader) for _, _, task in catalog.targets.each if isinstance(task, TaskOptions)]
    path = home / "targets" / f"{digest([VERSION, catalog.targets.model_dump(mode='json'), files])}.parquet"
    if not path.exists():
        roles, left_out = load_told(catalog.targets, SIZE, reader)
        notes = [f"{name if role != 'tests' else f'test {name!r}'}: {data.told}" for role, name, data in roles]
        rows = [
            {"role": role, "name": name, "digest": bytes.fromhex(one), "place": place}
            for role, name, data in roles
            for one, place in zip(data.identities, data.places, strict=True)
        ]
        told = "\n".join(" ".join(note.split()) for note in [*notes, *left_out])
        with publishing(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, TARGET_PICTURES.with_metadata({NOTES: told.encode()})), file)
    return path


def _fingerprint(task: TaskOptions, reader: Reader) -> str:
    if is_eval_set(task.source):
        return open_eval_set(task.source, task.folder, reader, task.templates is not None).identity(reader)
    open_sheet(Path(task.source))  # raises where there is none
    return sheet_fingerprint(Path(task.source))
