"""How many rows of each table the open transaction changed, as PostgreSQL itself counts them.

PostgreSQL: "The Cumulative Statistics System", pg_stat_xact_user_tables.
"""

from __future__ import annotations

from lib.postgres.connection import Connection, query

# what pg_stat_xact_user_tables counts, without all else that this view looks up
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
        """Since the transaction began."""
        return dict(query(self._connection, COUNTS))

    def new(self) -> dict[str, int]:
        """Since this was asked last."""
        before, self._seen = self._seen, self.all()
        return {table: rows - before.get(table, 0) for table, rows in self._seen.items() if rows != before.get(table)}
