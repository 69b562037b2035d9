"""Numbers with what they count, for people: 1 round, 2 rounds, 1,000 rounds."""

from __future__ import annotations


def counted(n: int, one: str, many: str | None = None) -> str:
    """``n`` and its noun, in the singular or the plural (``many``: where that is not ``one`` with an s)."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
