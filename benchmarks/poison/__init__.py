"""Poisons found by metagradient ascent, beside what published attacks do."""
