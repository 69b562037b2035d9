"""Filters of pairs that anyone could have used without metagradients and without the truth, a module each."""
