"""Exact derivatives of an objective: gradients, tangents and curvature products, in chunks."""
