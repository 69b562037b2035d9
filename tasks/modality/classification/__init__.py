"""Labelled pictures: a classifier, of which studies ask what a curation does not."""
