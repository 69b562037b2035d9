"""JSON that others wrote, as values that our tables can hold: a value that has no place there is no reason to refuse
the object around it.

NaN, infinities and numbers past the range of a double become null; whole numbers of thousands of digits their digits
as text; characters that Unicode does not have (halves of surrogate pairs) U+FFFD.
"""

from __future__ import annotations

import json
from typing import Any

LONGEST_NUMBER = 4000
"""Digits; Python refuses to read or write somewhat longer ones."""
DEEPEST = 100
"""Objects and lists within each other. Parsers and writers give up at depths that depend on who calls them."""


def json_object(data: bytes) -> dict[str, Any]:
    """The object of a JSON text in UTF-8, UTF-16 or UTF-32; raises ValueError for what is none."""
    try:
        found = json.loads(data, parse_constant=lambda _: None, parse_int=_whole, parse_float=_finite)
        if not isinstance(found, dict):
            raise ValueError(f"a JSON {type(found).__name__}, not an object")
        text = json.dumps(_shallow(found, DEEPEST), ensure_ascii=False)
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} objects and lists within each other") from error
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return dict(json.loads(text))


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_NUMBER else digits


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) < float("inf") else None


def _shallow(value: Any, depth: int) -> Any:
    """The value; what lies deeper in it than `depth` as JSON text."""
    if not isinstance(value, dict | list):
        return value
    if not depth:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return {name: _shallow(item, depth - 1) for name, item in value.items()}
    return [_shallow(item, depth - 1) for item in value]
