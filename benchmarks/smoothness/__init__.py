"""Metasmoothness against what it should foretell."""
