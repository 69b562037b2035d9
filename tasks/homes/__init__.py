"""Homes elsewhere: below any fsspec URL, worked on in a local copy, shared by leases."""
