"""Asks the database for everything that the page shows, in one READ ONLY transaction that sees one moment.

Every value is PostgreSQL's own text, as psql prints it. Memory does not grow with an answer: only its first rows are
fetched, and the others are counted by the server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import cursor as Cursor

from lib.elt_schema.strangers import Name, refuse_strangers, script_path
from lib.postgres.connection import Connection, Database, execute, query
from lib.postgres.driver_errors import message_of, translated

#: rows of an answer that the page shows, and rows that a chart is drawn from
SHOWN, DRAWN = 100, 5_000
#: characters of a value that the page shows
VALUE = 300
#: characters that are fetched at a time, and rows: rows may be wide
FETCH, FETCH_ROWS = 1_000_000, 500
#: seconds for one question
SECONDS = 30.0
#: what stands before a question when it is asked
DECLARE = "DECLARE question NO SCROLL CURSOR FOR "
#: for a cursor: returns every value as PostgreSQL's text
TEXT = psycopg2.extensions.new_type(tuple(psycopg2.extensions.string_types), "TEXT", lambda value, cursor: value)


@dataclass(frozen=True)
class Column:
    """A column of an answer. Numbers are aligned right."""

    name: str
    is_number: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer to a question. `rows` are the first ones, `total` counts all."""

    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[str | None, ...], ...] = ()
    total: int = 0
    #: why there is no answer, and the line of the SELECT where PostgreSQL found it, counted from 0
    error: str = ""
    line: int = 0

    def values(self, column: str) -> list[str | None]:
        """The values of one column."""
        place = [each.name for each in self.columns].index(column)
        return [row[place] for row in self.rows]


@contextmanager
def reading(database: Database, named: Sequence[Name]) -> Iterator[Connection]:
    """A connection in a REPEATABLE READ READ ONLY transaction with the time zone of the settings.

    named: the relations and functions that will be read. Raises EltError if the database cannot be asked, or if one of
    them is code of another role.
    """
    connection = database.connect("elt report")
    try:
        with translated("report"):
            refuse_strangers(connection, named)
            path = script_path(connection).path
            execute(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            execute(connection, f"SET LOCAL search_path = {path}; SET LOCAL DateStyle = 'ISO, YMD'")
            query(connection, "SELECT set_config('TimeZone', %s, true)", (database.settings.time_zone,))
            yield connection
    finally:
        connection.close()


def ask(connection: Connection, sql: str, *, rows: int = SHOWN, seconds: float = SECONDS, cut: int = VALUE) -> Answer:
    """The answer to one SELECT. An error, a lock or a lack of time is kept in the answer; the next one can be asked."""
    execute(connection, "SAVEPOINT question")
    until = time.monotonic() + seconds
    try:
        with connection.cursor() as cursor:
            psycopg2.extensions.register_type(TEXT, cursor)
            _run(cursor, f"{DECLARE}{sql}", until)
            found, columns = _fetch(cursor, rows, until, cut)
            _run(cursor, "MOVE FORWARD ALL FROM question", until)
            total = len(found) + int((cursor.statusmessage or "0").split()[-1])
        return Answer(columns, tuple(found), total)
    except psycopg2.Error as error:
        if connection.closed:
            raise
        late = isinstance(error, psycopg2.errors.QueryCanceled)
        place = max(0, int(error.diag.statement_position or 0) - len(DECLARE))
        return Answer(
            error=f"no answer within {seconds:g} s" if late else message_of(error), line=sql.count("\n", 0, place)
        )
    finally:
        if not connection.closed:
            execute(connection, "ROLLBACK TO SAVEPOINT question; RELEASE SAVEPOINT question")


def _fetch(
    cursor: Cursor, rows: int, until: float, cut: int
) -> tuple[list[tuple[str | None, ...]], tuple[Column, ...]]:
    found: list[tuple[str | None, ...]] = []
    columns: tuple[Column, ...] = ()
    block = 1
    while len(found) < rows:
        _run(cursor, f"FETCH {min(block, rows - len(found))} FROM question", until)
        columns = tuple(
            Column(column.name, column.type_code in psycopg2.NUMBER.values) for column in cursor.description or ()
        )
        more = cursor.fetchall()
        widest = max((sum(len(value or "") for value in row) for row in more), default=0)
        block = min(2 * block, FETCH_ROWS, max(1, FETCH // (widest + 1)))
        found += [tuple(_cut(value, cut) for value in row) for row in more]
        if not more:
            break
    return found, columns


def _run(cursor: Cursor, statement: str, until: float) -> None:
    left = max(1, round((until - time.monotonic()) * 1000))
    cursor.execute(f"SET LOCAL statement_timeout = {left}")
    cursor.execute(statement)


def _cut(value: str | None, length: int) -> str | None:
    return value if value is None or len(value) <= length else value[: length - 1] + "…"
