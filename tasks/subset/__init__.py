"""Subsets: filters in SQL, set algebra, and the files that hold them."""
