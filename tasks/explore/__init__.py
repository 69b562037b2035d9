"""A run looked at: its samples filtered, counted, ordered and shown, for `mgd explore`'s page."""
