"""The pipeline's effects, one noun a module: plain functions over paths, digests and small frozen options."""
