"""The census: what is missing from a pool, damaged, doubled or drifted, before anybody trains on it."""
