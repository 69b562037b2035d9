"""Texts for a causal language model."""
