"""Catalogs: the TOML files that say everything about a curation or a study, as checked, frozen models."""
