"""Curations towards many tasks: the units of their losses, and what each task wants of every sample."""
