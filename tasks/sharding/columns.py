"""Columns by the names that people give them: which has the picture, its place, the caption, the uid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tasks.sharding.attempts import ShardingError

# In the order in which they are preferred; open_clip's CSV has filepath and title, img2dataset's lists url and caption.
PLACES = (
    "filepath", "file_path", "file_name", "filename", "image_path", "img_path", "path", "image_file", "file", "image",
    "img", "photo", "url", "image_url", "uri",
)  # fmt: skip
CAPTIONS = ("caption", "text", "title", "txt", "captions", "alt_text", "alt", "description", "sentence", "prompt")
IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "data")


def chosen(where: str, names: Sequence[str], wanted: Sequence[str], named: str | None, key: str) -> str | None:
    """The column that the options name, or else the first of the names that people use, in any case; None: there is
    none. Raises ShardingError where the named one is not there."""
    if named is not None:
        if named not in names:
            raise ShardingError(f"{where}: no column {named!r} ({key}); it has {', '.join(map(repr, names))}")
        return named
    by = {name.lower(): name for name in reversed(names)}
    return next((by[one] for one in wanted if one in by), None)


def image_column(where: str, columns: Mapping[str, pa.DataType], named: str | None) -> str | None:
    """The column of a Parquet file that has pictures' bytes: binary, or Hugging Face's struct of bytes and path; None
    where there is none. Raises ShardingError where it cannot be told which of several."""
    holding = [name for name, kind in columns.items() if holds_bytes(kind)]
    if named is not None:
        if named not in holding:
            raise ShardingError(f"{where}: column {named!r} (image_col) has no bytes; these have: {holding or 'none'}")
        return named
    liked = chosen(where, holding, IMAGES, None, "image_col")
    if liked is None and len(holding) > 1:
        raise ShardingError(
            f"{where}: columns {', '.join(holding)} have bytes, and none is called as pictures are; name one: image_col"
        )
    return liked or next(iter(holding), None)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column's type has room for a picture's file."""
    if pa.types.is_struct(kind):
        inner = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
        return holds_bytes(inner)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def no_column(where: str, what: str, key: str, names: Sequence[str]) -> str:
    """What is told where no column could be guessed."""
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    return f"{where}: which column has the {what}? It has {shown}: name one with {key}"
