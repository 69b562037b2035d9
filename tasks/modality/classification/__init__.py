"""Labelled pictures for a classifier: what the studies train on."""
