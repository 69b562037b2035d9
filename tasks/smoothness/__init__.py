"""Metasmoothness: the gate before a curation, and its ablation."""
