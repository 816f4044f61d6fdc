"""Records what the load of a bronze table changes, if a run is at work (lib/elt_schema/row_changes.sql).

Bronze rows have no key, so a changed row is one that went and one that came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql

from lib.config.jobs import Load
from lib.postgres.connection import Connection, execute, query

#: Whether this is the transaction of a run, and whether the rows of a table can be kept. A row of so many columns could
#: fill its page, and then the side does not fit. PostgreSQL refuses WITH for some rules.
ASKED = """
    SELECT coalesce(current_setting('elt.run_id', true), '') <> '', relnatts < 400 AND NOT relhasrules
    FROM pg_class WHERE oid = %s::regclass
"""


@contextmanager
def recording(
    connection: Connection, load: Load, deleted: int, inserted: int, *, is_kept: bool = True
) -> Iterator[sql.Composable | None]:
    """Count the rows that the block deletes and inserts in a bronze table.

    Gives the block the table into which it must write these rows: 'before' or 'after', then the columns of bronze.
    None: only counts are kept. Outside of a run, or if nothing changes, nothing is recorded.
    """
    table = sql.Identifier(load.schema, load.name).as_string(connection)
    ((in_a_run, may_keep),) = query(connection, ASKED, (table,))
    if not in_a_run or deleted + inserted == 0:
        yield None
        return
    ((kept,),) = query(
        connection,
        "SELECT elt._begin_changes(%s::regclass, NULL, %s, %s, %s)",
        (table, deleted + inserted, deleted == 0 and not is_kept, is_kept and may_keep),
    )
    yield sql.SQL(kept) if kept else None
    execute(connection, "SELECT elt._end_changes(%s::regclass, %s, %s, 0, %s)", (table, kept, inserted, deleted))
