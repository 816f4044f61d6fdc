"""Records what the load of a bronze table changes, if a run is at work (lib/elt_schema/row_changes.sql).

Bronze rows have no key, so a changed row is one that went and one that came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2 import sql

from lib.postgres.connection import Connection, execute, query

#: whether this is the transaction of a run
IN_A_RUN = "SELECT coalesce(current_setting('elt.run_id', true), '') <> ''"


def count_changes(connection: Connection, table: sql.Identifier, deleted: int, inserted: int) -> None:
    """Record that all rows of a bronze table were replaced: how many went and came. The rows are not kept."""
    with _recording(connection, table, deleted, inserted, is_kept=False):
        pass


def keep_changes(
    connection: Connection,
    table: sql.Identifier,
    columns: Sequence[str],
    gone: tuple[sql.Composable, int],
    came: tuple[sql.Composable, int],
) -> None:
    """Record the rows that went from a bronze table and those that came, each given as (relation or subquery in
    parentheses, number of rows). Equal rows are there as often as they went or came.

    columns: those that both have. What the table has besides is NULL in the record.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with _recording(connection, table, gone[1], came[1], is_kept=True) as recording:
        for side, (rows, _) in (("before", gone), ("after", came)):
            recording.keep(side, names, sql.SQL("SELECT {} FROM {} AS changed").format(names, rows))


@dataclass(frozen=True)
class _Recording:
    connection: Connection
    table: str
    #: NULL: only counts are kept
    kept: str | None

    def keep(self, side: str, names: sql.Composable, rows: sql.Composable) -> None:
        if self.kept is not None:
            arguments = (self.table, self.kept, side, *(part.as_string(self.connection) for part in (names, rows)))
            query(self.connection, "SELECT elt._keep_rows(%s::regclass, %s, %s, %s, %s)", arguments)


@contextmanager
def _recording(
    connection: Connection, table: sql.Identifier, deleted: int, inserted: int, *, is_kept: bool
) -> Iterator[_Recording]:
    """Begin and end a record. Outside of a run, or if nothing changed, nothing is recorded."""
    name = table.as_string(connection)
    if deleted + inserted == 0 or query(connection, IN_A_RUN) == [(False,)]:
        yield _Recording(connection, name, None)
        return
    ((kept,),) = query(
        connection,
        "SELECT elt._begin_changes(%s::regclass, NULL, %s, %s, %s)",
        (name, deleted + inserted, deleted == 0 and not is_kept, is_kept),
    )
    yield _Recording(connection, name, kept)
    execute(connection, "SELECT elt._end_changes(%s::regclass, %s, %s, 0, %s)", (name, kept, inserted, deleted))
