"""Exports: a subset as a file or as shards, resharded by copying bytes."""
