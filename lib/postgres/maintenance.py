"""What keeps a table fast to read: VACUUM after a commit, statistics before the next script.

PostgreSQL: "Routine Vacuuming".
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.postgres.connection import Connection, execute, query


def analyze_if_changed(connection: Connection, table: str, rows_changed: int) -> None:
    """Fresh statistics for a table of which more than a tenth was changed: autovacuum's rule, which comes too late."""
    ((estimated,),) = query(connection, "SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table,))
    if rows_changed > max(estimated, 0) / 10:
        execute(connection, f"ANALYZE {table}")


def has_statistics(connection: Connection, schema: str, name: str) -> bool:
    """They are gone after a restore, and after an upgrade of PostgreSQL to 17 or older."""
    ((has,),) = query(
        connection, "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = %s AND tablename = %s)", (schema, name)
    )
    return bool(has)


def vacuum(connection: Connection, tables: Sequence[str]) -> list[str]:
    """VACUUM tables after the commit; returns what PostgreSQL had to say.

    Without ANALYZE: where rows became many more or fewer, the publish transaction had to do that already.

    TRUNCATE false: a truncating VACUUM makes readers wait. SKIP_LOCKED: somebody else's lock is no reason to wait.
    """
    del connection.notices[:]
    for table in tables:
        execute(connection, f"VACUUM (TRUNCATE false, SKIP_LOCKED) {table}")
    return [notice.strip() for notice in connection.notices if notice.startswith("WARNING")]
