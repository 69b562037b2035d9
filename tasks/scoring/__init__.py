"""Learned scores: what is known of a sample, models of g fitted to it, and score tables."""
