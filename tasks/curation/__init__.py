"""Curation: rounds of training, metagradient and count update, the choice of a round, the comparison."""
