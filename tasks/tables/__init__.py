"""Published tables in Parquet, their schemas, and the SQL that people ask of them."""
