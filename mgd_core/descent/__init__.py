"""Count updates and projected steps."""
