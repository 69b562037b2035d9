"""Pools: what may be trained on, indexed sample by sample, with what was rejected and why."""
