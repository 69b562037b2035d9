"""Plain values: what JSON can hold, of anything that JSON texts or Arrow columns come with.

A value of a type that JSON has not becomes its ISO 8601 text (dates, times, timestamps in UTC, durations), a number or
its digits (decimals of up to 15 digits; longer ones), null (NaN and infinities), or its text (UUIDs). Bytes have no
plain form: a column of them is left out, as is a field of them inside a struct.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

EXACT_DIGITS = 15
"""Decimal digits that a double holds exactly."""
PARTS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EPOCH = datetime(1970, 1, 1)
Plain = Callable[[Any], Any]


def plain_columns(columns: Mapping[str, pa.DataType]) -> tuple[dict[str, Plain], list[str]]:
    """How each column's Arrow scalars become plain values, by name; and the columns, or `column.field`s, that cannot,
    with their types."""
    made = {name: _uid(kind) if name == "uid" else _plain(kind) for name, kind in columns.items()}
    left_out = [told for name, kind in columns.items() if name != "uid" for told in _left_out(name, kind)]
    return {name: plain for name, plain in made.items() if plain is not None}, left_out


def plain_rows(batch: pa.RecordBatch, columns: dict[str, Plain]) -> Iterator[dict[str, Any]]:
    """The rows of a batch as records of plain values."""
    values = []
    for name, plain in columns.items():
        array = batch.column(batch.schema.names.index(name))  # of two of one name the first
        # Python's own values are quicker to get by than Arrow's scalars.
        values.append(_cleaned(array.to_pylist()) if plain is _as_it_is else [plain(scalar) for scalar in array])
    return (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def _plain(kind: pa.DataType) -> Plain | None:
    """From an Arrow scalar of a type to a plain value; None where there is none."""
    types = pa.types
    if _is_simple(kind):
        return _as_it_is
    if types.is_decimal(kind):
        short = kind.precision <= EXACT_DIGITS and kind.scale >= 0
        return _skipping(lambda scalar: float(scalar.as_py()) if short else str(scalar.as_py()))
    if types.is_date(kind):
        return _skipping(_date)
    if types.is_timestamp(kind):
        return _skipping(lambda scalar: _moment(scalar.value, kind.unit, kind.tz is not None))
    if types.is_time(kind):
        return _skipping(lambda scalar: _moment(scalar.value, kind.unit, False).partition("T")[2])
    if types.is_duration(kind):
        return _skipping(lambda scalar: _duration(scalar.value, kind.unit))
    return _nested(kind)


def _nested(kind: pa.DataType) -> Plain | None:
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _of(kind.value_type, lambda value, scalar: value(_inner(scalar)))
    if isinstance(kind, pa.BaseExtensionType):
        if kind == pa.uuid():
            return _skipping(lambda scalar: str(scalar.as_py()))
        return _of(kind.storage_type, lambda value, scalar: value(scalar.value))
    if types.is_map(kind):
        item = _plain(kind.item_type)
        return item and _of(kind.key_type, lambda key, scalar: _pairs(scalar, key, item))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or _is_view(kind):
        return _of(kind.value_type, lambda value, scalar: [value(one) for one in scalar.values])
    if types.is_struct(kind):
        fields = [(i, kind.field(i).name, _plain(kind.field(i).type)) for i in range(kind.num_fields)]
        kept = [(i, name, value) for i, name, value in fields if value is not None]
        return _skipping(lambda scalar: {name: value(scalar[i]) for i, name, value in kept}) if kept else None
    return None


def _left_out(name: str, kind: pa.DataType) -> Iterator[str]:
    """The parts of a column that have no plain values."""
    if _plain(kind) is None:
        yield f"{name} ({kind})"
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _left_out(f"{name}.{kind.field(i).name}", kind.field(i).type)
    elif not _is_simple(kind) and hasattr(kind, "value_type"):
        yield from _left_out(name, kind.value_type)


def _as_it_is(scalar: Any) -> Any:
    return _cleaned(scalar.as_py())


def _is_simple(kind: pa.DataType) -> bool:
    """Whether Python's value of an Arrow scalar is plain, but for NaN and infinities."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_simple(kind.value_type)
    plain = types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    return bool(plain or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _cleaned(value: Any) -> Any:
    """The value with null for NaN and infinities; a half float is no float of Python's."""
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    return _finite(float(value)) if isinstance(value, float | np.floating) else value


def _of(inner: pa.DataType, plain: Callable[[Plain, Any], Any]) -> Plain | None:
    """From a scalar that holds others, given how these become plain; None where they cannot."""
    value = _plain(inner)
    return None if value is None else _skipping(lambda scalar: plain(value, scalar))


def _skipping(plain: Plain) -> Plain:
    """The same for a scalar that may be null."""
    return lambda scalar: plain(scalar) if scalar.is_valid else None


def _uid(kind: pa.DataType) -> Plain | None:
    """A uid may be 16 bytes too."""
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _skipping(lambda scalar: scalar.as_py().hex())
    return _plain(kind)


def _inner(scalar: Any) -> Any:
    """The scalar that a dictionary's or a run's scalar stands for."""
    return scalar.dictionary[scalar.index.as_py()] if hasattr(scalar, "dictionary") else scalar.value


def _pairs(scalar: Any, key: Plain, item: Plain) -> Any:
    """A map: an object where its keys are texts, each there once, else a list of pairs."""
    found = [(key(pair[0]), item(pair[1])) for pair in scalar.values]
    named = {name: value for name, value in found if isinstance(name, str)}
    return named if len(named) == len(found) else [list(pair) for pair in found]


def _date(scalar: Any) -> str:
    days = scalar.value if scalar.type == pa.date32() else scalar.value // 86_400_000
    return _moment(days * 86_400, "s", False).partition("T")[0]


def _moment(value: int, unit: str, aware: bool) -> str:
    """The ISO text of so many units since 1970 began, in UTC where a time zone is known."""
    seconds, part = divmod(value, PARTS[unit])
    try:
        text = (EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    except OverflowError:  # years that datetime does not know
        return f"{value} {unit} since 1970"
    return text + _fraction(part * (PARTS["ns"] // PARTS[unit])) + ("+00:00" if aware else "")


def _duration(value: int, unit: str) -> str:
    seconds, part = divmod(abs(value), PARTS[unit])
    return f"{'-' * (value < 0)}PT{seconds}{_fraction(part * (PARTS['ns'] // PARTS[unit]))}S"


def _fraction(nanoseconds: int) -> str:
    """A second's fraction in six digits, or nine where it takes them; nothing where there is none."""
    digits = f"{nanoseconds:09d}"
    return f".{digits[:6] if digits.endswith('000') else digits}" if nanoseconds else ""


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))
