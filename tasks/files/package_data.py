"""What travels with the package beside its code."""

from pathlib import Path

CATALOGS = Path(__file__).resolve().parents[2] / "catalogs"
"""Catalogs, views, filters, models and embedded pools."""
