"""REPLAY: a training run forward, and the exact reverse sweep through it."""
