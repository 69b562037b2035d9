"""One header for views and filters: what it says, its notes, and the statement after it."""

from __future__ import annotations

from tasks.tables.sql_headers import Header, parse_header


def test_a_header_is_parted_from_its_statement() -> None:
    said = "-- What it is,\n-- in two lines: of words.\n-- needs: a, b\n--   one: A note.\n"
    header = parse_header(f"{said}\nSELECT 1 -- needs: c\n-- d\n", ["needs", "for each"])
    assert header == Header(
        "What it is, in two lines: of words.",
        ["one: A note."],
        {"needs": ["a, b"], "for each": []},
        "SELECT 1 -- needs: c\n-- d",
    )
    assert parse_header("SELECT 1", []) == Header("", [], {}, "SELECT 1")
    assert parse_header("-- only words\r\n", []).statement == ""
