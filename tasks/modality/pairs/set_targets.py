"""Evaluation sets as curation targets: one part of a set's samples, with its classes and sentences.

A sample's part is a keyed hash of its pictures' bytes, so equal pictures are never in two parts, of one set or of
several, and a part stays what it is when the set grows. Split `all` is the whole set. Cost: one pass over the set,
every picture of the part decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tasks.catalog.target_options import ALL, Part, PartsOptions, TaskOptions, in_template
from tasks.evaluation.eval_samples import EvalSample, EvalSetError, Kind
from tasks.evaluation.eval_sets import EvalSet, open_eval_set
from tasks.files.remote_files import Reader
from tasks.pool.decoding import resized


@dataclass(frozen=True)
class SetPart:
    """Decoded images (n, 3, S, S) uint8 in the set's order, their classes' numbers, identities, digests of their pixels
    and places (tar and member), each class's texts, and a sentence on what was read."""

    images: npt.NDArray[np.uint8]
    labels: list[int]
    identities: list[str]
    digests: list[str]
    places: list[str]
    classes: list[str]
    class_texts: list[list[str]]
    told: str


def draw(identity: str, seed: int) -> float:
    """Where a sample stands in [0, 1): a keyed hash of its identity."""
    hashed = blake2b(bytes.fromhex(identity), key=b"parts/%d" % seed, digest_size=8).digest()
    return int.from_bytes(hashed, "big") / 2**64


def part_of(identity: str, parts: PartsOptions) -> Part | None:
    """The part that a sample belongs to; None: the shares leave it out."""
    at, edge = draw(identity, parts.seed), 0.0
    names: tuple[Part, ...] = ("target", "heldout", "test")
    for name in names:
        edge += getattr(parts, name)
        if at < edge:
            return name
    return None


def load_part(options: TaskOptions, parts: PartsOptions, size: int, reader: Reader | None = None) -> SetPart:
    """The part ``options.split`` of a set at ``size`` pixels.

    Raises EvalSetError: the set is damaged, of a kind that is no target, or its part is empty.
    """
    found, samples, told = part_samples(options, parts, ("classification", "retrieval"), reader)
    images, digests = pictures_of(samples, size)
    known = [sample.identity for sample in samples], digests, [sample.place for sample in samples]
    if found.kind == "retrieval":
        texts = levelled([list(sample.captions) for sample in samples], options.max_texts)
        return SetPart(images, list(range(len(samples))), *known, [sample.key for sample in samples], texts, told)
    labels = [int(sample.label or 0) for sample in samples]
    return SetPart(images, labels, *known, list(found.classes), class_sentences(found, options), told)


def part_samples(
    options: TaskOptions, parts: PartsOptions, kinds: Sequence[Kind], reader: Reader | None = None
) -> tuple[EvalSet, list[EvalSample], str]:
    """A set, the samples of its part ``options.split`` in the set's order, and a sentence on what was read.

    Raises EvalSetError: the set is damaged, of none of the ``kinds``, or its part is empty.
    """
    found = open_eval_set(options.source, options.folder, reader, own_sentences=options.templates is not None)
    where = f"{options.source}, part '{options.split}'"
    if found.kind not in kinds:
        raise EvalSetError(
            f"{where}: a {found.kind} set is no target; {', '.join(kinds[:-1])} and {kinds[-1]} sets are"
        )
    if options.split not in ("target", "heldout", "test", ALL):
        raise EvalSetError(f"{where}: there is no such part; an evaluation set has target, heldout, test and {ALL}")
    if found.kind == "retrieval" and options.templates is not None:
        raise EvalSetError(f"{where}: `templates` is of no use to a retrieval set, whose captions are its sentences")
    kept: list[tuple[float, int, EvalSample]] = []
    number = -1
    for number, sample in enumerate(found.samples(reader)):
        if options.split in (ALL, part_of(sample.identity, parts)):
            kept.append((draw(sample.identity, parts.seed), number, sample))
        if options.max_images and len(kept) > 2 * options.max_images:
            kept = _lowest(kept, options.max_images)
    samples = [sample for _, _, sample in _lowest(kept, options.max_images)]
    if not samples:
        raise EvalSetError(f"{where}: no sample falls into it; give it a larger share in targets.parts")
    unread = f"; not read: {', '.join(found.unread)}" if found.unread else ""
    told = f"{len(samples):,} of the {number + 1:,} pictures in {options.source}/{options.folder}{unread}"
    return found, samples, told


def pictures_of(samples: Sequence[EvalSample], size: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Decoded images (n, 3, S, S), and what each is known by: a digest of its pixels."""
    images, digests = np.empty((len(samples), 3, size, size), np.uint8), list[str]()
    for at, sample in enumerate(samples):
        (picture,) = sample.pictures()
        images[at] = resized(picture.image, size)
        digests.append(picture.digest.hex())
    return images, digests


def _lowest(kept: list[tuple[float, int, EvalSample]], n: int | None) -> list[tuple[float, int, EvalSample]]:
    """Those ``n`` (None: all) of the lowest hash, in the set's order."""
    return sorted(sorted(kept, key=lambda one: one[:2])[:n], key=lambda one: one[1])


def class_sentences(found: EvalSet, options: TaskOptions) -> list[list[str]]:
    """Of each class of a set, the same number."""
    if options.templates is None:
        return levelled(found.class_texts(), options.max_texts)
    return [[in_template(template, name) for template in options.templates] for name in found.classes]


def levelled(texts: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """The same number of texts of each class: evenly chosen where it has more, repeated where fewer."""
    n = min(most, max((len(own) for own in texts), default=0))
    return [[own[i * len(own) // n] for i in range(n)] for own in texts]
