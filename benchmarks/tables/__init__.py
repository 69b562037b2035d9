"""Tables and SQL at millions of rows."""
