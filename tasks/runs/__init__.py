"""Runs: a catalog on a pool, what identifies it, and which there are."""
