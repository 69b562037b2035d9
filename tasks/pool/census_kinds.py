"""Census kinds: everything that a census can find wrong with a pool, and how much of each is let pass.

Links die and contents drift on any pool, so nothing is held against those unless the catalog says so. Files that are
missing or disagree with each other are damage somebody can repair, so each of those counts unless the catalog allows
it. Rejected samples and damaged tars have the pool's own budget (`pool.max_rejects`, `pool.max_damaged_shards`).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import Field, field_validator

from tasks.files.option_types import Section
from tasks.pool.record import Budget
from tasks.pool.validation import DAMAGE, REASONS

Limit = Budget


@dataclass(frozen=True)
class Kind:
    """What a finding says, what a share of it is of, and how many are allowed unless the catalog says (None: any)."""

    doc: str
    of: str
    limit: int | None = None


KINDS: dict[str, Kind] = {
    "dead_link": Kind("the picture could not be had when the shard was made", "attempts"),
    "not_attempted": Kind("the metadata has the uid, but no shard tried to download it", "metadata", 0),
    "sha256_drift": Kind("what the link serves is not what was crawled", "samples"),
    "no_metadata": Kind("the metadata has no row of this uid", "samples", 0),
    "duplicate_image": Kind("the picture has the same bytes as one of another uid", "samples"),
    "tested_on": Kind("the picture is also one of the catalog's held-out target or of a test", "samples"),
    "caption_differs": Kind("the caption in the txt member is not the one in the json member", "samples", 0),
    "missing_json": Kind("the sample has no json member, though others of its shard do", "samples", 0),
    "not_in_tar": Kind("the shard's table says that it was downloaded, the tar does not have it", "attempts", 0),
    "not_in_table": Kind("the tar has it, the shard's table does not say that it was downloaded", "samples", 0),
    "gap": Kind("no tar of this number; the official tools look for shards from 0 on without gaps", "shards", 0),
    "missing_tar": Kind("the shard's table or stats are there, its tar is not", "shards", 0),
    "passed_over": Kind("a file beside the tars that looks like data, and is no *.tar: nothing reads it", "shards", 0),
    "missing_stats": Kind("no stats file, though other shards have one: the download did not finish", "shards", 0),
    "missing_table": Kind("no table of what was tried, though other shards have one", "shards", 0),
    "unreadable_stats": Kind("the stats file is not what img2dataset writes", "shards", 0),
    "unreadable_table": Kind("the shard's table cannot be read", "shards", 0),
    "stats_mismatch": Kind("the stats count other successes than the tar holds samples", "shards", 0),
    "unreadable_metadata": Kind("the metadata file cannot be read, or has no uid", "files", 0),
    "metadata_duplicate": Kind("the metadata has this uid more than once", "metadata", 0),
    "missing_npz": Kind("no npz beside the metadata file, though others have one", "files", 0),
    "unreadable_npz": Kind("the npz beside the metadata file cannot be read", "files", 0),
    "npz_mismatch": Kind("an array of the npz has another number of rows than the metadata file", "files", 0),
} | {reason: Kind(doc, "shards" if reason in (*DAMAGE, "empty_tar") else "samples") for reason, doc in REASONS.items()}


class CensusOptions(Section):
    """What a census may find before it says no."""

    limits: dict[str, Limit] = Field(
        default={},
        description="most findings of a kind: a whole number counts, a fraction is a share (1.0: any number); a kind "
        "that is not named keeps its usual limit",
    )

    @field_validator("limits")
    @classmethod
    def _kinds_exist(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        for kind in limits:
            if kind not in KINDS:
                near = get_close_matches(kind, KINDS, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"the kinds are {', '.join(KINDS)}"
                raise ValueError(f"no finding is called '{kind}'; {hint}")
        return limits

    def allowed(self, kind: str, total: int) -> int | None:
        """How many findings of `kind` are allowed among `total`, or None for any number."""
        limit = self.limits.get(kind, KINDS[kind].limit)
        return limit if limit is None or isinstance(limit, int) else int(limit * total)
