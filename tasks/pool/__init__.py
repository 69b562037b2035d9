"""Pools: samples where they lie, indexed once, whatever kind they are of."""
