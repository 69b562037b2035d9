"""Many tasks of pictures and texts as one target: what each asks, read from sheets and evaluation sets."""
