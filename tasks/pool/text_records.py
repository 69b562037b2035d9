"""Text samples of a pool: a prompt and what should follow it, from files with columns of any name.

A row of the samples table has its place (file and key), no image, `prompt` and `completion` as columns of their own,
and `text`, which is both. What else a record has is carried over; columns of its own that are called `prompt` or
`completion`, and are not what is taken for these, get `upstream_` in front. A sample that names no uid is known by its
text, so equal samples are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.files.artefacts import canonical_json
from tasks.files.remote_files import Reader
from tasks.files.remotes import RemoteOptions
from tasks.files.source_patterns import Files
from tasks.pool.forms import NO_MEMBERS, SampleForm
from tasks.pool.shards import ShardIndex, part_nameless
from tasks.pool.text_files import NAMES, Fault, find_texts, records
from tasks.pool.validation import printable, reject
from tasks.tables.uids import content_uid, normalise

OURS = ("prompt", "completion")


class TextColumns(SampleForm):
    """What the columns of the source are called."""

    kind = "texts"
    version = 4
    names = NAMES

    prompt: str = "prompt"
    """The column of what is given."""
    input: str | None = None
    """A second column that follows the prompt after an empty line where it is not empty (Alpaca's `input`)."""
    completion: str = "completion"
    """The column of what should follow."""
    messages: str | None = None
    """A chat: a list of {role, content}, instead of the others. The last turn is the completion."""

    @property
    def used(self) -> tuple[str, ...]:
        """Those of which prompt and completion are made."""
        if self.messages is not None:
            return (self.messages,)
        return (self.prompt, self.completion, *([self.input] if self.input else []))

    def find(self, source: str | Path | Sequence[str], options: RemoteOptions | None = None) -> Files:
        """The files of texts of ``source``."""
        return find_texts(source, options)

    def index(self, url: str, name: str, reader: Reader) -> ShardIndex:
        """One sequential read."""
        return index_texts(url, name, self, reader)

    def identity(self) -> dict[str, Any]:
        """The columns, under the name that they have had from the beginning."""
        return {"text": self.model_dump(mode="json")}


class _Bad(ValueError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def index_texts(url: str, name: str, columns: TextColumns, reader: Reader) -> ShardIndex:
    """The samples and rejects of a file; `name` is what the `shard` column says instead of the URL."""
    rows, rejects, notes = list[dict[str, Any]](), list[dict[str, Any]](), dict[str, None]()
    for key, record in records(url, reader, lambda note: notes.setdefault(note)):
        if isinstance(record, Fault):
            lost = "" if key else f"; {len(rows)} samples before it were read, all that follows is lost"
            rejects.append(reject(name, key, record.reason, record.detail + lost))
            continue
        try:
            rows.append(_row(name, key, record, columns))
        except _Bad as bad:
            rejects.append(reject(name, key, bad.reason, bad.detail))
    if not rows and not rejects:
        rejects.append(reject(name, "", "empty_file"))
    kept, nameless = part_nameless(name, rows) if rows else (rows, [])
    return ShardIndex(kept, rejects + nameless, tuple(notes))


def prompt_and_completion(record: dict[str, Any], columns: TextColumns) -> tuple[str, str]:
    """The two texts of a record; raises ValueError where it has not both."""
    if columns.messages is not None:
        return _of_chat(record, columns.messages)
    prompt = _text(record, columns.prompt)
    more = record.get(columns.input) if columns.input else None
    if more is not None and not isinstance(more, str):  # a number is as good as its digits
        more = canonical_json(more).decode() if more not in ([], {}) else ""
    if more and more.strip():
        prompt = f"{prompt}\n\n{more}"
    if "\0" in prompt:
        raise _Bad("bad_text", f"a NUL in '{columns.input}'")
    return prompt, _text(record, columns.completion)


def identity(record: dict[str, Any], columns: TextColumns) -> tuple[str, bool]:
    """The uid of a record, and whether it names it itself; raises ValueError where it has none."""
    uid = _uid(record) if "uid" in record else None
    prompt, completion = prompt_and_completion(record, columns)
    return uid or content_uid(prompt.encode(), completion.encode()), uid is not None


def _row(shard: str, key: str, record: dict[str, Any], columns: TextColumns) -> dict[str, Any]:
    uid, named = identity(record, columns)
    prompt, completion = prompt_and_completion(record, columns)
    return {
        **NO_MEMBERS,
        "uid": uid,
        "shard": shard,
        "key": printable(key),
        "text": f"{prompt}\n{completion}",
        "upstream": _others(record, columns) | {"prompt": prompt, "completion": completion},
        "named_uid": named,
    }


def _others(record: dict[str, Any], columns: TextColumns) -> dict[str, Any]:
    """What a record has besides, under names that leave `prompt` and `completion`, in any case, to us."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if name == "uid" or name in columns.used:
            continue
        free = name
        # SQL does not tell Prompt from prompt.
        while free.lower() in OURS or (free != name and free in record):
            free = f"upstream_{free}"
        found[free] = value
    return found


def _of_chat(record: dict[str, Any], column: str) -> tuple[str, str]:
    turns = record.get(column)
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        raise _Bad("missing_text", f"'{column}' is not a list of two or more turns")
    *before, last = [(str(turn.get("role", "")), _text(turn, "content")) for turn in turns]
    if last[0] != "assistant":
        raise _Bad("missing_text", f"the last turn of '{column}' is of '{last[0]}', not of the assistant")
    if len(before) == 1:
        return before[0][1], last[1]
    return "\n".join(f"<|{role}|>\n{content}" for role, content in before), last[1]


def _text(record: dict[str, Any], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        if column in record:
            held = "null" if value is None else f"a {type(value).__name__}"
            raise _Bad("missing_text", f"'{column}' is {held}, not a text")
        known = ", ".join(sorted(record)) or "none"
        raise _Bad("missing_text", f"no text in '{column}'; there are: {known}")
    if not value.strip():
        raise _Bad("empty_text", f"'{column}'")
    if "\0" in value:
        raise _Bad("bad_text", f"a NUL in '{column}'")
    return value


def _uid(record: dict[str, Any]) -> str:
    try:
        return normalise(record["uid"])
    except ValueError as error:
        raise _Bad("bad_uid", str(error)) from error
