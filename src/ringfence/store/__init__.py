"""The SQLite database: schema, rows, queries, and a background writer."""
