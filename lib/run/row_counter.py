"""Counts the rows of each table that the open transaction changed, from PostgreSQL's statistics.

PostgreSQL: "The Cumulative Statistics System", pg_stat_xact_user_tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib.postgres.connection import Connection, query

# the counters of pg_stat_xact_user_tables, without the other columns that this view computes
COUNTS = """
    SELECT format('%I.%I', nspname, relname), changed,
        CASE WHEN relkind = 'r' THEN coalesce(pg_partition_root(pg_class.oid)::oid, pg_class.oid) END
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_stat_get_xact_tuples_inserted(pg_class.oid) + pg_stat_get_xact_tuples_updated(pg_class.oid)
            + pg_stat_get_xact_tuples_deleted(pg_class.oid) AS changed
    ) AS counted
    WHERE relkind IN ('r', 'm') AND nspname !~ '^(pg_|elt|information_schema)' AND changed > 0
"""


@dataclass(frozen=True)
class Changed:
    """How many rows of a table were changed."""

    rows: int
    #: oid of the table; of a partition that of its partitioned table; None: a materialized view
    table: int | None


class RowCounter:
    """Counts inserted, updated and deleted rows by table, in the transaction that is open on this connection.

    PostgreSQL also counts what a ROLLBACK TO SAVEPOINT took back, so call `new` after one.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: dict[str, Changed] = {}

    def all(self) -> dict[str, Changed]:
        """Changed rows by table or partition since the transaction began."""
        return {name: Changed(rows, table) for name, rows, table in query(self._connection, COUNTS)}

    def new(self) -> dict[str, Changed]:
        """Changed rows by table or partition since the last call of this method."""
        before, self._seen = self._seen, self.all()
        return {
            name: replace(changed, rows=changed.rows - before[name].rows if name in before else changed.rows)
            for name, changed in self._seen.items()
            if changed != before.get(name)
        }
