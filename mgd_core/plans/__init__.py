"""Plans: which states a reverse sweep keeps, recomputes and reads."""
