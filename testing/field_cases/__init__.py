"""The cases themselves; importing this enters all of them."""

from testing.field_cases import catalogs, evaluation, models, pools, subsets, tables, texts

__all__ = ["catalogs", "evaluation", "models", "pools", "subsets", "tables", "texts"]
