"""Files, near and far: published whole, read in ranges, found by patterns, never trusted."""
