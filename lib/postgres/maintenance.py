"""Keeps tables fast to read: VACUUM after the commit, ANALYZE before the next script.

PostgreSQL: "Routine Vacuuming".
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.postgres.connection import Connection, execute, query


def analyze_if_changed(connection: Connection, table: str, rows_changed: int) -> None:
    """ANALYZE a table if more than a tenth of its rows changed.

    Autovacuum has the same rule, but it runs only after the commit. The next script needs the statistics before that.
    """
    ((estimated,),) = query(connection, "SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table,))
    if rows_changed > max(estimated, 0) / 10:
        analyze(connection, table)


def analyze(connection: Connection, table: str) -> None:
    """ANALYZE a table, but not in a preview: a rollback does not take back the number of rows that ANALYZE stores."""
    if query(connection, "SELECT current_setting('elt.is_preview', true)") != [("on",)]:
        execute(connection, f"ANALYZE {table}")


def has_statistics(connection: Connection, schema: str, name: str) -> bool:
    """Whether the table has statistics. They are lost by a restore, and by an upgrade to PostgreSQL 17 or older."""
    ((has,),) = query(
        connection, "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = %s AND tablename = %s)", (schema, name)
    )
    return bool(has)


def vacuum(connection: Connection, tables: Sequence[str], *, with_statistics: bool = False) -> list[str]:
    """VACUUM tables after the transaction, those that exist. Returns PostgreSQL's warnings.

    After a publish ANALYZE is not needed: the transaction has already done it for tables that changed much.
    TRUNCATE false: otherwise VACUUM may lock out readers while it truncates. SKIP_LOCKED: do not wait for a table that
    another session has locked.
    """
    del connection.notices[:]
    for (table,) in query(
        connection, "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", ([*tables],)
    ):
        execute(connection, f"VACUUM ({'ANALYZE, ' if with_statistics else ''}TRUNCATE false, SKIP_LOCKED) {table}")
    return [notice.strip() for notice in connection.notices if notice.startswith("WARNING")]
