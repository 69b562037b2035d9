"""Files and folders of evaluation sets (`eval_sets`): what is listed, counted and read line by line, checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks.evaluation.eval_samples import EvalSetError
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import list_files

IMAGENET = (1000, {"missile", "sunglasses"})
"""Class names of ImageNet, and those that its published list has twice."""
TAR = re.compile(r".+\.(tar|tgz|tar\.[a-z0-9]+)", re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\n|\r")


def folders_of(base: str, folder: str, reader: Reader) -> tuple[str, ...]:
    """Folders of a set with a count of tars, but for one; none where the store lists nothing."""
    names = (name for name, entry in listing(base, reader).items() if entry["type"] != "file" and name != folder)
    return tuple(name for name in names if text_of(f"{base}/{name}/nshards.txt", reader) is not None)


def listing(base: str, reader: Reader) -> dict[str, Mapping[str, Any]]:
    """What lies in a folder, by name; empty where the store does not tell."""
    if base.startswith(("http://", "https://")):  # web servers have no listings that could be relied on
        return {}
    try:
        return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in list_files(base, reader.options)}
    except PermissionError:
        return {}


def check_count(folder: str, number: int, reader: Reader) -> None:
    """Whether the tars in a folder are those that its nshards.txt counts; raises EvalSetError."""
    listed = listing(folder, reader)
    there = {name for name in listed if TAR.fullmatch(name)}
    if not listed and _is_there(f"{folder}/{number}.tar", reader):  # a web server that lists nothing
        there = {f"{i}.tar" for i in range(number + 1)}
    missing = next((f"{i}.tar" for i in range(number) if f"{i}.tar" not in there), None)
    if listed and missing:
        raise EvalSetError(
            f"{folder}: lacks a tar that nshards.txt counts: it says {number}, there is no {missing} "
            f"({_few(there) or 'none at all'} there). Fetch it again, or correct the number"
        )
    more = there - {f"{i}.tar" for i in range(number)}
    if more:
        raise EvalSetError(
            f"{folder}: nshards.txt says {number}, so {_few(more)} would be passed over, and a score over part of a "
            f"set is a wrong number. Correct the number, or take away what is not of the set"
        )


def _is_there(url: str, reader: Reader) -> bool:
    try:
        reader.version(url)
    except FileNotFoundError:
        return False
    return True


def _few(names: Collection[str]) -> str:
    """Some of the names, in the order of their numbers."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    return ", ".join(ordered[:4]) + (f" and {len(ordered) - 4} more" if len(ordered) > 4 else "")


def tell_passed_over(folders: Sequence[str], reader: Reader) -> None:
    """Say which of some folders have samples, but none to test on; raises EvalSetError at tars that are not counted."""
    for folder in folders:
        inside = listing(folder, reader)
        if "test" in inside and text_of(f"{folder}/test/nshards.txt", reader) is None:
            if any(TAR.fullmatch(name) for name in listing(f"{folder}/test", reader)):
                raise EvalSetError(
                    f"{folder}: has tars in test, but no test/nshards.txt that counts them; write their number there"
                )
        elif "test" not in inside and (others := folders_of(folder, "test", reader)):
            say(f"{folder}: passed over, it has {' and '.join(others)} and no test folder")


def text_of(url: str, reader: Reader) -> str | None:
    """A file's text; None where there is no such file."""
    try:
        return reader.read(url).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise EvalSetError(f"{url}: not text in UTF-8 ({error})") from error


def lines_of(url: str, reader: Reader, published: bool) -> tuple[str, ...]:
    """The lines of a file, blanks around each removed; raises EvalSetError when there is none, one is blank, or, unless
    the file is ``published`` so, one comes twice."""
    text = text_of(url, reader)
    lines = [line.strip() for line in LINE_END.split(text or "")]
    while lines and not lines[-1]:
        del lines[-1]
    if not lines:
        raise EvalSetError(
            f"{url}: {'not there' if text is None else 'empty'}; zero-shot classification needs it (a set of another "
            "kind says so in dataset_type.txt)"
        )
    if "" in lines:
        raise EvalSetError(
            f"{url}: line {lines.index('') + 1} of {len(lines)} is blank, though each stands for one, by its number. "
            "Fill it in, or remove it if the labels are counted without it"
        )
    twice = {line for line, count in Counter(lines).items() if count > 1}
    if twice and published:
        say(f"{url}: {_few(twice)} there more than once; taken as published")
    elif twice - (IMAGENET[1] if len(lines) == IMAGENET[0] else set()):
        numbers = [str(n) for n, line in enumerate(lines, 1) if line == min(twice)]
        raise EvalSetError(
            f"{url}: {min(twice)!r} stands in lines {', '.join(numbers)}, and what is called alike cannot be told "
            "apart. Give each a name of its own, or remove the line that is too many"
        )
    return tuple(lines)
