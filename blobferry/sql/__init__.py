"""The tables, the database's clock, and engines on PostgreSQL and SQLite."""
