"""Kinds of training data behind one seam: what a pool holds, how it is trained on, what its targets are."""
