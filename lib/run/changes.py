"""What a run changed: rows that other statements changed besides, and how long changed rows are kept.

lib/elt_schema/row_changes.sql records what the load of bronze, elt.publish_rows and elt.publish_history change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import psycopg2
from psycopg2 import sql

from lib.postgres.connection import Connection, execute, query
from lib.run.history import WRITING
from lib.run.row_counter import Changed

#: adds to the count of one table
NOTE = """
    INSERT INTO elt.changes AS known (run_id, relation, relation_oid, by_other_statements)
    SELECT %s, elt._full_name(oid), oid, %s FROM pg_class WHERE oid = %s
    ON CONFLICT (run_id, relation) DO UPDATE
    SET by_other_statements = known.by_other_statements + excluded.by_other_statements
"""

#: what tables hold after their first filling
FILLED = """
    UPDATE elt.changes
    SET filled_columns = elt._columns_of(relation_oid),
        filled_with = elt._filled_with(relation_oid, elt._columns_of(relation_oid))
    WHERE run_id = %s AND first_filling
"""

#: tables of schema elt_changes of runs before the last so many published ones; those of undos after them stay, too
NOT_NEEDED = """
    SELECT relname
    FROM pg_class
    WHERE relnamespace = to_regnamespace('elt_changes') AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
        AND relname NOT IN (
            SELECT kept_as
            FROM elt.changes
            WHERE kept_as IS NOT NULL AND run_id >= (
                SELECT min(run_id)
                FROM (
                    SELECT DISTINCT run_id FROM elt.job_runs WHERE status = 'published' ORDER BY run_id DESC LIMIT %s
                ) AS published
            )
        )
    ORDER BY relname
"""

#: One transaction. NOWAIT, because later readers of the table would wait behind us.
DROP = """
    SET LOCAL lock_timeout = '20ms'; SET LOCAL synchronous_commit = off;
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT;
    DROP VIEW IF EXISTS {view};
    DROP TABLE {table};
    {writing}
    UPDATE elt.changes SET kept_as = NULL WHERE kept_as = {name};
"""


def note_other_statements(connection: Connection, run_id: int, changes: Iterable[Changed]) -> None:
    """Record in elt.changes how many rows were changed by statements that record nothing themselves.

    changes: what PostgreSQL counted since the transaction's settings were applied last. Call it before they are applied
    again, because then elt.recorded_rows is emptied.
    """
    others: Counter[int] = Counter()
    for changed in changes:
        if changed.table is not None:
            others[changed.table] += changed.rows
    if not others:
        return
    ((recorded,),) = query(connection, "SELECT current_setting('elt.recorded_rows', true)")
    for table, rows in (map(int, each.split()) for each in (recorded or "").split(";") if each):
        others[table] -= rows
    for table, rows in others.items():
        if rows > 0:
            execute(connection, NOTE, (run_id, rows, table))


def note_first_fillings(connection: Connection, run_id: int) -> None:
    """Record what tables hold that this run filled first, so that an undo can tell whether they still do.

    Call it in the publish transaction, after the last script.
    """
    execute(connection, FILLED, (run_id,))


def drop_old(connection: Connection, runs: int) -> None:
    """Drop the rows that runs before the last `runs` published ones changed. The counts stay.

    Call it after COMMIT, under the run lock. A table that somebody reads is left to the next run.
    """
    for (name,) in query(connection, NOT_NEEDED, (runs,)):
        with suppress(psycopg2.errors.LockNotAvailable):
            execute(
                connection,
                sql.SQL(DROP).format(
                    table=sql.Identifier("elt_changes", name),
                    view=sql.Identifier("elt_changes", f"{name}_rows"),
                    name=sql.Literal(name),
                    writing=sql.SQL(WRITING),
                ),
            )
