"""Census views: the tables of a home's censuses (`mgd census`), for questions in SQL beside those of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tasks.tables.schemas import DOC
from tasks.tables.table_views import TableView, view_of
from tasks.tables.uids import UID

FINISHED = "census.json"
WRITTEN = r"/([^/]*)/[^/]*\.parquet$"
"""The end of a table's path: the directory of a census is called after its pool."""
POOL = pa.field("pool", pa.string(), False, {DOC: b"The pool that the census was taken of; `pool` of a run's record."})


@dataclass(frozen=True)
class CensusTable:
    """A table of a census: the file it is in, what a row is, and its columns with a sentence each."""

    file: str
    shows: str
    schema: pa.Schema


def _table(file: str, shows: str, *columns: tuple[str, pa.DataType, str]) -> CensusTable:
    fields = [pa.field(name, kind, True, {DOC: doc.encode()}) for name, kind, doc in columns]
    return CensusTable(file, shows, pa.schema(fields))


_UID = ("uid", UID, "Identity of the sample, 128 bits; null where it is not known.")
CENSUS = {
    "census_shards": _table(
        "shards.parquet",
        "One row a shard of a pool (`mgd census`): its files, and how many samples are in them.",
        ("shard", pa.string(), "The tar, as in samples."),
        ("number", pa.int64(), "The number that the tar is called by; null where it has none."),
        ("bytes", pa.int64(), "Length of the tar, bytes; null where it is not known."),
        ("has_tar", pa.bool_(), "True if the tar is there."),
        ("has_table", pa.bool_(), "True if the table beside it is there, of what was tried."),
        ("has_stats", pa.bool_(), "True if the file of counters beside it is there."),
        ("names_uids", pa.bool_(), "True if some of its samples name their uid."),
        ("samples", pa.int64(), "Samples that can be used."),
        ("rejects", pa.int64(), "Samples that cannot."),
        ("attempted", pa.int64(), "Samples that the downloader tried; null where nothing says."),
        ("successes", pa.int64(), "Samples that the downloader counted as got; null where nothing says."),
    ),
    "census_samples": _table(
        "samples.parquet",
        "One row a sample of a pool (`mgd census`): sizes and hashes.",
        _UID,
        ("shard", pa.string(), "The tar that holds the sample, as in samples."),
        ("key", pa.string(), "The sample's key in its shard; not an identity."),
        ("width", pa.int32(), "Width of the image, pixels."),
        ("height", pa.int32(), "Height of the image, pixels."),
        ("image_bytes", pa.int64(), "Length of the image, bytes."),
        ("image_hash", pa.binary(16), "Digest of the image's bytes: equal for equal files."),
        ("pixel_hash", pa.binary(16), "Digest of the decoded pixels: equal for equal pictures, whatever their format."),
        ("caption_characters", pa.int32(), "Length of the caption, characters."),
        ("caption_words", pa.int32(), "Length of the caption, words parted by white space."),
        ("sha256", pa.binary(32), "What the json member says of the image's SHA-256."),
    ),
    "census_attempts": _table(
        "attempts.parquet",
        "One row a sample that the downloader tried (`mgd census`), failures too.",
        _UID,
        ("shard", pa.string(), "The shard that it was tried for."),
        ("key", pa.string(), "Its key in the shard."),
        ("status", pa.string(), "What came of it; success, or why not."),
        ("error", pa.string(), "The downloader's message."),
    ),
    "census_metadata": _table(
        "metadata.parquet",
        "One row a row of the pool's metadata (`mgd census`): what was crawled.",
        _UID,
        ("file", pa.string(), "The metadata's file."),
        ("sha256", pa.binary(32), "SHA-256 of the image when it was crawled."),
        ("clip_b32_similarity_score", pa.float32(), "Cosine of image and caption by OpenAI's CLIP ViT-B/32, -1 to 1."),
        ("clip_l14_similarity_score", pa.float32(), "Cosine of image and caption by OpenAI's CLIP ViT-L/14, -1 to 1."),
    ),
    "census_findings": _table(
        "findings.parquet",
        "One row a thing that a census found (`mgd census`): missing, damaged, doubled or drifted.",
        ("kind", pa.string(), "What was found, one word of a fixed list."),
        ("shard", pa.string(), "The shard or file that it is about; empty for the pool as a whole."),
        ("member", pa.string(), "Key or member name in the tar; empty where it is about the whole."),
        _UID,
        ("detail", pa.string(), "What was seen, for a person."),
    ),
}


def censuses(home: Path) -> list[Path]:
    """Directories of the finished censuses of a home."""
    return sorted(path.parent for path in (Path(home) / "census").glob(f"*/{FINISHED}"))


def census_views(home: Path) -> dict[str, TableView]:
    """The view of each table over all finished censuses of a home, empty where there is none."""
    found = censuses(home)
    return {
        name: view_of(
            census.schema,
            [path for one in found if (path := one / census.file).exists()],
            [POOL],
            WRITTEN,
        )
        for name, census in CENSUS.items()
    }
