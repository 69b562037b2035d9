"""File forms: what a file is by its first bytes, whatever its name says; so that a refusal can tell what came instead.

Nothing here decides what is read: a reader that cannot use a file asks what it looks like. Cost: HEAD bytes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

HEAD = 1 << 16
MAGICS = {
    b"\x1f\x8b\x08": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
    b"ARROW1": "an Arrow file",
    b"\x93NUMPY": "a numpy file",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe\0\0": "text in UTF-32",
    b"\0\0\xfe\xff": "text in UTF-32",
    b"%PDF": "a PDF",
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the file itself: git lfs pull",
}
# Protocols 4 and 5 begin with a frame, 2 and 3 with a container, a class or a text.
PICKLE = re.compile(rb"\x80[\x04\x05]\x95|\x80[\x02\x03][\]})(cXU]")
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|error)", re.IGNORECASE)
ZEROS = "nothing but zeros"
BOM = b"\xef\xbb\xbf"
LINES = 10


def form_of(head: bytes) -> str:
    """What a file that begins with `head` is, as it would be told; empty where nothing speaks for anything."""
    for magic, name in MAGICS.items():
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "a tar"
    if PICKLE.match(head):
        return "a pickle"
    if PAGE.match(head.removeprefix(BOM)):
        return "a page of HTML or XML, such as a server sends instead of a file"
    if head and not head.strip(b"\0"):
        return ZEROS
    if any(_is_wide(head, form) for form in ("utf-16-le", "utf-16-be")):
        return "text in UTF-16"
    return "text" if head and _is_text(head) else ""


def form_of_file(path: str | Path) -> str:
    """What a local file is by its first bytes."""
    with open(path, "rb") as file:
        return form_of(file.read(HEAD))


def not_lines(head: bytes) -> str:
    """Why a file that begins with `head` is not one JSON object a line, and what to do; empty where it may be."""
    form = form_of(head)
    if form not in ("", "text"):  # what `bytes.splitlines` would make of it is no line
        remedy = "; JSON lines are UTF-8: iconv -f utf-16 -t utf-8" if "UTF-" in form else ""
        return f"not JSON lines but {form}{remedy}"
    lines = [line.strip() for line in head.removeprefix(BOM).splitlines() if line.strip()]
    if not lines:
        return ""
    first = lines[0]
    values = [_json(line) for line in (lines if len(head) < HEAD else lines[:-1])[:LINES]]
    if first.startswith(b"[") and (not values or _is_array(values[0])):
        return "not JSON lines but one JSON array; write each of its objects on a line: jq -c '.[]' IN > OUT.jsonl"
    if any(isinstance(value, dict) for value in values) and first != b"{":
        return ""
    if len(lines) > 1 and first.startswith(b"{") and values and isinstance(values[0], EOFError):
        return "not JSON lines but JSON over many lines; write each object on a line of its own: jq -c . IN > OUT.jsonl"
    if first[:1] not in b"{[" and not any(value is not None and not isinstance(value, EOFError) for value in values):
        shown = first[:60].decode("utf-8", "replace")
        table = next((name for sign, name in SEPARATORS.items() if sign in first), "")
        kind = f"lines of {table}-separated values (CSV)" if table else "other text"
        return f"not JSON lines but, it seems, {kind}: it begins with {shown!r}; each line has to be a JSON object"
    return ""


SEPARATORS = {b"\t": "tab", b",": "comma", b";": "semicolon"}


def _is_array(value: object) -> bool:
    """Whether a file's first line, which begins with [, opens or is an array of objects rather than a stray list."""
    return isinstance(value, EOFError) or (isinstance(value, list) and any(isinstance(one, dict) for one in value))


def _json(line: bytes) -> object:
    """A line's value; EOFError (as a value) where it is the beginning of one, None where it is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return EOFError() if error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg else None
    except (ValueError, RecursionError):
        return None


def _is_wide(head: bytes, form: str) -> bool:
    """Whether the bytes are text in UTF-16: they say so, or every other one is 0, and the first are printable."""
    marked = head.startswith("\ufeff".encode(form))
    if len(head) < 4 or not (marked or not head[form == "utf-16-le" :: 2].strip(b"\0")):
        return False
    text = head[2 * marked : 130].decode(form, "replace")
    return all(char.isprintable() or char in "\t\r\n" for char in text)


def _is_text(head: bytes) -> bool:
    """Whether the bytes are printable text in UTF-8, but for a character that is cut at the end."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) - error.start > 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\r\n" for char in text)
