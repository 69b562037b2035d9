"""Samples of evaluation sets (`eval_sets`): the members of each key of a tar, checked, as what a task asks of them.

Nothing is passed over: a member that is torn, missing, twice there or not what it should be stops the reading, for a
score over part of a test set is a wrong number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mgd_core.errors import UserError
from tasks.files.artefacts import digest
from tasks.files.remote_files import Reader
from tasks.files.tars import Member, TarDamage, walk
from tasks.pool.decoding import Picture, PictureError, decode
from tasks.pool.validation import IMAGE_EXTENSIONS

Kind = Literal["classification", "retrieval", "multilabel", "association", "faces"]
LONGEST_LABEL = 9
"""Digits of a label; more are no number of a class, and Python would not even read thousands of them."""
FORMS = {"classification": "cls", "retrieval": "txt", "multilabel": "npy", "association": "npy", "faces": "npy"}
"""Member that holds the answer, in sets of each kind."""
PICTURE = re.compile(rf"(?:(\d+)\.)?({'|'.join(IMAGE_EXTENSIONS)})")


class EvalSetError(UserError, ValueError):
    """A set that cannot be evaluated as it is; the message says which file, what is wrong and what to do."""


@dataclass(frozen=True)
class EvalSample:
    """One sample: encoded images (one, but for associations), and what is known of it; None, () where nothing is."""

    key: str
    images: tuple[bytes, ...]
    label: int | None
    vector: npt.NDArray[np.int64] | None
    captions: tuple[str, ...]
    shard: str = ""
    members: tuple[str, ...] = ()
    """Tar that it is in, and names of its images there."""

    @property
    def place(self) -> str:
        """Tar and member."""
        return f"{self.shard}, member {self.members[0]!r}"

    def pictures(self) -> list[Picture]:
        """Its images, decoded; raises EvalSetError, naming tar and member, at one that cannot be."""
        found = []
        for data, member in zip(self.images, self.members, strict=True):
            try:
                found.append(decode(data))
            except PictureError as error:
                raise EvalSetError(f"{self.shard}, member {member!r}: its image cannot be decoded ({error})") from error
        return found

    @property
    def identity(self) -> str:
        """Digest of its pictures, 32 hex digits: whoever has the same ones is the same sample."""
        return digest(b"".join(len(image).to_bytes(8, "little") + image for image in self.images))


def keyed(shard: str, reader: Reader) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (by extension) of each sample of a tar, as webdataset groups them; raises EvalSetError at damage
    or members out of place."""
    try:
        file, length = reader.open(shard)
    except FileNotFoundError as error:
        raise EvalSetError(f"{shard}: not there, though nshards.txt counts it; fetch the set again") from error
    with file:
        try:
            for sample in _webdataset().group_by_keys(_files(shard, walk(file, length))):
                key = sample.pop("__key__")
                del sample["__url__"]
                yield key, sample
        except TarDamage as damage:
            raise EvalSetError(f"{shard}: {damage}; fetch the set again") from damage
        except EvalSetError:
            raise
        except ValueError as error:  # of group_by_keys
            told = f"a member comes twice, so it is unclear what belongs together ({error.args[0]})"
            raise EvalSetError(f"{shard}: {told}") from error


def _webdataset() -> Any:
    """webdataset's own words of what belongs together; asked for late, since it brings torch, and catalogs that name
    sets are read by commands that only ask tables."""
    return import_module("webdataset.tariterators")


def _files(shard: str, members: Iterable[Member]) -> Iterator[dict[str, Any]]:
    """Members as webdataset takes them, but for what it would pass over, or take for another sample, in silence."""
    last, seen, base_plus_ext = "", set[str](), _webdataset().base_plus_ext
    for member in members:
        key, extension = base_plus_ext(member.name)
        if key is None or member.torn or extension.startswith("__"):  # a name of webdataset's own
            raise EvalSetError(f"{shard}: member {member.name!r} is torn or of no sample; fetch the set again")
        if key != last and key in seen:
            raise EvalSetError(f"{shard}: {key!r} comes twice, so it is unclear what belongs together")
        last = key
        seen.add(key)
        yield {"__url__": shard, "fname": member.name, "data": member.data}


def made_sample(kind: Kind, classes: int, shard: str, key: str, members: dict[str, bytes]) -> EvalSample:
    """The sample of a key of a tar, of a set of this kind with so many class names; raises EvalSetError."""
    where = f"{shard}, sample {key!r}"
    matched = sorted((int(m[1] or 0), name) for name in members if (m := PICTURE.fullmatch(name)))
    images = tuple(members[name] for _, name in matched)
    if FORMS[kind] not in members or not images or (len(images) > 1) != (kind == "association"):
        raise EvalSetError(
            f"{where}: has {', '.join(sorted(members))}; a sample of a {kind} set has an image and {FORMS[kind]}"
        )
    captions = tuple(_decoded(where, members["txt"]).splitlines()) if "txt" in members else ()
    vector = _vector(where, members["npy"]) if "npy" in members else None
    label = None
    if kind == "classification":
        label = _label(where, members["cls"], classes)
    elif kind == "multilabel":
        _check_mask(where, vector, classes, "classes")
    elif kind != "faces" and not captions:
        raise EvalSetError(f"{where}: has no caption")
    elif kind == "association":
        _check_mask(where, vector, len(images), "images")
    return EvalSample(key, images, label, vector, captions, shard, tuple(f"{key}.{name}" for _, name in matched))


def _label(where: str, data: bytes, classes: int) -> int:
    text = _decoded(where, data).strip()
    if not text.isdecimal() or len(text) > LONGEST_LABEL or int(text) >= classes:
        raise EvalSetError(f"{where}: its label is {text[:60]!r}; with {classes} class names it is 0 to {classes - 1}")
    return int(text)


def _vector(where: str, data: bytes) -> npt.NDArray[np.int64]:
    try:
        array: Any = np.load(io.BytesIO(data), allow_pickle=False)
        whole = np.asarray(array).astype(np.int64)
    except (ValueError, OSError, EOFError) as error:
        raise EvalSetError(f"{where}: its npy is not readable ({error})") from error
    if whole.ndim != 1 or not np.array_equal(whole, array):
        raise EvalSetError(f"{where}: its npy has shape {whole.shape}; it is one row of whole numbers")
    return whole


def _check_mask(where: str, vector: npt.NDArray[np.int64] | None, size: int, what: str) -> None:
    if vector is None or len(vector) != size or not np.isin(vector, (0, 1)).all():
        raise EvalSetError(f"{where}: its npy is {vector}; it is 0 or 1 for each of the {size} {what}")


def _decoded(where: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EvalSetError(f"{where}: not text in UTF-8 ({error})") from error
