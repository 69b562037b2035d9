"""One deterministic training run: optimizer, schedule, order, loader."""
