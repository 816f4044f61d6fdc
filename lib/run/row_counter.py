"""Counts the rows of each table that the open transaction changed, from PostgreSQL's statistics.

PostgreSQL: "The Cumulative Statistics System", pg_stat_xact_user_tables.
"""

from __future__ import annotations

from lib.postgres.connection import Connection, query

# the counters of pg_stat_xact_user_tables, without the other columns that this view computes
COUNTS = """
    SELECT format('%I.%I', nspname, relname), changed
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_stat_get_xact_tuples_inserted(pg_class.oid) + pg_stat_get_xact_tuples_updated(pg_class.oid)
            + pg_stat_get_xact_tuples_deleted(pg_class.oid) AS changed
    ) AS counted
    WHERE relkind IN ('r', 'm') AND nspname !~ '^(pg_|elt|information_schema)' AND changed > 0
"""


class RowCounter:
    """Counts inserted, updated and deleted rows by table, in the transaction that is open on this connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: dict[str, int] = {}

    def all(self) -> dict[str, int]:
        """Changed rows by table since the transaction began."""
        return dict(query(self._connection, COUNTS))

    def new(self) -> dict[str, int]:
        """Changed rows by table since the last call of this method."""
        before, self._seen = self._seen, self.all()
        return {table: rows - before.get(table, 0) for table, rows in self._seen.items() if rows != before.get(table)}
