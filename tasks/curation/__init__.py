"""Curation: the rounds, and what comes before and after them."""
