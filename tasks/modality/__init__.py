"""Kinds of training data: what each of them reads, trains, and is measured by, behind one face."""
