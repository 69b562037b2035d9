"""What subsets of a comparison are called: a built-in name, a rival's, or `FILTER@COLUMN`.

`loss_filter@source` is the loss filter with its scores averaged over the samples of one source: whole groups, by
whatever tells them in `descent.groups`.
"""

from __future__ import annotations

import re

from tasks.files.artefacts import unit_name

BUILT_IN = (
    *("everything", "mgd", "random", "loss_filter", "own_clip_filter", "negclip_filter", "norm_sim_filter"),
    *("negclip_norm_sim_filter", "domain_match_filter", "color_filter", "gradient_filter", "influence_filter"),
    *("embedding_filter", "oracle"),
)
"""Built-in subsets of any kind of data."""
RENAMED = {"clip_filter": "own_clip_filter"}
"""Some under the names of earlier versions."""
TAKEN = (*BUILT_IN, "checkpoint", "target", "heldout", *RENAMED)
"""Names that a rival of the catalog cannot have."""
POOLED = "@"
_PLAIN = re.compile(r"[A-Za-z0-9_.@-]{1,100}")


def filter_and_column(subset: str) -> tuple[str, str | None]:
    """The name without its column, and the column; None: it has none."""
    name, pooled, column = subset.partition(POOLED)
    return name, column if pooled else None


def spelt(subset: str) -> str:
    """The name with its grouping as `descent.groups` spells it."""
    name, column = filter_and_column(subset)
    return name if column is None else name + POOLED + "*".join(part.strip() for part in column.split("*"))


def check_subset(subset: str, known: tuple[str, ...]) -> None:
    """See that a built-in subset is one of ``known``, or one of its filters by a column.

    Raises:
        ValueError: it is not; says what there is.
    """
    name, column = filter_and_column(subset)
    if name not in known:
        raise ValueError(f"no subset is called {name!r}; there are {', '.join(known)}")
    if column is not None and not (column and name.endswith("_filter")):
        ranked = [one for one in known if one.endswith("_filter")]
        raise ValueError(
            f"{subset!r}: what can be averaged over groups are the scores of {', '.join(ranked)}, each before "
            f"{POOLED} and a column of the pool, as in '{ranked[0] if ranked else name}@source'"
        )


def check_blend(subset: str, known: tuple[str, ...]) -> None:
    """See that what g is blended with is a filter; raises ValueError as `check_subset`."""
    check_subset(subset, known)
    if not filter_and_column(subset)[0].endswith("_filter"):
        filters = [one for one in known if one.endswith("_filter")]
        raise ValueError(f"descent.blends: {subset!r} is no filter; there are {', '.join(filters)}")


def file_name(subset: str) -> str:
    """What a subset is called in names of files: as it is, unless its column has letters that these cannot have."""
    return subset if _PLAIN.fullmatch(subset) else unit_name(subset)
