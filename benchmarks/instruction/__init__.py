"""Selection of instruction-tuning data."""
