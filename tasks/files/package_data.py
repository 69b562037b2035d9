"""What travels with the package beside its code."""

from importlib.metadata import version
from pathlib import Path

CATALOGS = Path(__file__).resolve().parents[2] / "catalogs"
"""Catalogs, views, filters, models and embedded pools."""


def product() -> str:
    """This program's version, which records of what it made hold."""
    return version("mgd")
