"""Evaluation sets in clip_benchmark's WebDataset form: what is in one, and its samples, one after the other.

    NAME/test/0.tar, 1.tar, ...                   samples; NAME is wds_<task>_test, `/` in the task's key written `-`
    NAME/test/nshards.txt                         number of tars
    NAME/classnames.txt                           one class a line, in the order of the labels
    NAME/zeroshot_classification_templates.txt    one sentence a line; {c} stands for the class
    NAME/dataset_type.txt                         retrieval, multilabel, association; not there: classification

A sample is an image (webp, png, jpg or jpeg) with `cls` (its label, a whole number from 0), `txt` (captions, one a
line) or `npy` (0 and 1 for each class, or the groups that a sample is in). `association` is ours, for WinoGAViL, of
which DataComp has no such set: images 0.jpg, 1.jpg, ... of one key, `txt` (the cue) and `npy` (1 for each of them that
belongs to it). `faces`, which FairFace and UTKFace are, asks several questions of one image: classes and sentences
begin with the question's name and a colon, `npy` holds what is known of the person.

A set is read as it is or not at all: a score over part of a test set is a wrong number. So nshards.txt has to count the
tars that are there, and each line of the other files is one name or sentence: labels are numbers of lines. Blank lines
at the end, a byte order mark and Windows' line ends mean nothing; a blank line elsewhere, or one that comes twice,
stops the reading (but for DataComp's own sets, which are taken as published). Folders may lie wherever fsspec reaches,
Hugging Face's pages of a data set (.../tree/main) included. Cost: one stream a tar, one sample in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import cast, get_args

from tasks.evaluation.datacomp import folder_names, name_of, resolved, task_key, tasks
from tasks.evaluation.eval_files import check_count, folders_of, lines_of, tell_passed_over, text_of
from tasks.evaluation.eval_samples import EvalSample, EvalSetError, Kind, keyed, made_sample
from tasks.files.artefacts import CHUNK, digest
from tasks.files.remote_files import Reader
from tasks.files.remotes import address, list_files
from tasks.files.sources import fingerprint
from tasks.pool.sheets import TABLE, TILES

FAIRNESS = ("fairness/fairface", "fairness/utkface")
MOST_TARS = 1_000_000


@dataclass(frozen=True)
class EvalSet:
    """A set that was found: its address, task key, kind, class names, templates (with {c}) and tars."""

    url: str
    key: str
    kind: Kind
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[str, ...]
    unread: tuple[str, ...] = ()
    """Other folders of the set that hold samples."""

    def samples(self, reader: Reader | None = None) -> Iterator[EvalSample]:
        """All samples, in the order of the tars; raises EvalSetError at the first that is not sound."""
        empty = True
        for shard in self.shards:
            for key, members in keyed(shard, reader or Reader()):
                empty = False
                yield made_sample(self.kind, len(self.classes), shard, key, members)
        if empty:
            raise EvalSetError(f"{self.url}: no sample in any of its tars ({len(self.shards)}); fetch it again")

    def identity(self, reader: Reader | None = None) -> str:
        """Digest of its text files, and of its tars' sizes and stamps; raises EvalSetError when one is not there."""
        try:
            shards = [fingerprint(shard, reader or Reader()) for shard in self.shards]
        except FileNotFoundError as error:
            raise EvalSetError(f"{self.url}: lacks a tar that nshards.txt counts ({error}); fetch it again") from error
        return digest([self.kind, self.classes, self.templates, shards])

    def content(self, reader: Reader | None = None) -> str:
        """Digest of all its bytes, the same wherever it lies; reads it through."""
        found: list[object] = [self.kind, self.classes, self.templates]
        for shard in self.shards:
            state = blake2b(digest_size=16)
            file, _ = (reader or Reader()).open(shard)
            with file:
                while chunk := file.read(CHUNK):
                    state.update(chunk)
            found.append(state.hexdigest())
        return digest(found)

    def class_texts(self) -> list[list[str]]:
        """For each class, its sentences."""
        return [[template.replace("{c}", name) for template in self.templates] for name in self.classes]


def is_eval_set(source: str) -> bool:
    """Whether a source of targets or tests is an evaluation set, and no sheet."""
    return "://" in source or not any((Path(source) / name).exists() for name in (TILES, TABLE))


def open_eval_set(url: str, folder: str = "test", reader: Reader | None = None, own_sentences: bool = False) -> EvalSet:
    """The set at `url` (path or URL), its samples those of `folder`; reads its text files only, and not its sentences
    if the caller has `own_sentences`.

    Raises EvalSetError when it is no such set, or lacks what its kind needs.
    """
    reader, base = reader or Reader(), resolved(url)
    number, others = text_of(f"{base}/{folder}/nshards.txt", reader), folders_of(base, folder, reader)
    if number is None:
        instead = f"; it has {' and '.join(others)}, which `folder` can name" if others else ""
        raise EvalSetError(
            f"{url}: no {folder}/nshards.txt, so this is no set in clip_benchmark's form{instead}. Name a folder with "
            f"{folder}/0.tar, ..., {folder}/nshards.txt and classnames.txt (clip_benchmark_export_wds makes them), or "
            "one that holds such folders (for a target, a single one, or a sheet: tiles.png and table.parquet)"
        )
    number = number.strip()
    if not number.isdecimal() or len(number) > len(str(MOST_TARS)) or not 1 <= int(number) <= MOST_TARS:
        raise EvalSetError(f"{base}/{folder}/nshards.txt: says {number[:60]!r}, not a number of tars from 1 on")
    check_count(f"{base}/{folder}", int(number), reader)
    key = task_key(name_of(base))
    usual = "faces" if key in FAIRNESS else "classification"
    kind = (text_of(f"{base}/dataset_type.txt", reader) or usual).strip().lower()
    if kind not in get_args(Kind):
        raise EvalSetError(f"{base}/dataset_type.txt: says {kind!r}; there are {', '.join(get_args(Kind))}")
    named = kind in ("classification", "multilabel", "faces")
    published = key in tasks()
    classes = lines_of(f"{base}/classnames.txt", reader, published) if named else ()
    sentences = f"{base}/zeroshot_classification_templates.txt"
    templates = lines_of(sentences, reader, published) if named and not own_sentences else ()
    without = [template for template in templates if "{c}" not in template]
    if without:
        raise EvalSetError(
            f"{sentences}: template {without[0]!r} has no {{c}} where the class goes, so all classes are one"
        )
    shards = tuple(f"{base}/{folder}/{i}.tar" for i in range(int(number)))
    return EvalSet(url, key, cast(Kind, kind), classes, templates, shards, others)


def find_eval_sets(url: str, reader: Reader | None = None) -> list[str]:
    """Addresses of the sets in a folder: itself if it is one, else those it holds, sorted by name; never none."""
    reader, base = reader or Reader(), resolved(url)
    if text_of(f"{base}/test/nshards.txt", reader) is not None:
        return [url]
    if base.startswith(("http://", "https://")):  # web servers have no listings that could be relied on
        found = [f"{base}/{name}" for name in folder_names()]
    else:
        entries = list_files(base, reader.options)
        found = [address(base, str(entry["name"])) for entry in entries if entry["type"] != "file"]
        tell_passed_over(found, reader)
    sets = [one for one in found if text_of(f"{one}/test/nshards.txt", reader) is not None]
    if not sets:
        raise EvalSetError(
            f"{url}: neither a set in clip_benchmark's form (test/nshards.txt) nor a folder with such sets; DataComp's "
            "are called wds_<task>_test"
        )
    return sets
