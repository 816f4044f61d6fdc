"""Runs a SQL script statement by statement, so that an error names file and line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import cursor as Cursor

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection
from lib.postgres.driver_errors import translate
from lib.transform.statements import Statement, statements

#: how many different warnings of a script are reported
MAX_WARNINGS = 5
UNDEFINED_COLUMN = "42703"
#: the usual cause, if a comment is about a column that the table lacks
OLD_TABLE = (
    "The table was there before, and CREATE TABLE IF NOT EXISTS changes no table that is there."
    " `check --online` prints how it differs, and the statements that change it."
)
#: a result with exactly these columns comes from elt.publish_rows
ROW_COUNTS = ["inserted", "updated", "deleted", "unchanged"]
#: what stands before a statement of which only the first rows are fetched; the server counts the others
DECLARE = "DECLARE elt_rows NO SCROLL CURSOR FOR "
#: how a statement begins that a cursor can read
READING = ("select", "with", "table", "values")
#: words with which it cannot, after a WITH or a SELECT (PostgreSQL: DECLARE, "Parameters")
NOT_BY_CURSOR = {"with": {"insert", "update", "delete", "merge", "into"}, "select": {"into"}}


@dataclass(frozen=True)
class ScriptResult:
    """What a script did, and how long it took."""

    path: str
    seconds: float
    #: rows that elt.publish_rows inserted, updated, deleted and left unchanged; None if the script did not call it
    row_counts: tuple[int, int, int, int] | None = None
    #: for a check: number of rows that break its rule
    broken_by: int | None = None
    #: for a check whose rule is broken: the message, with the first of these rows
    claim: str = ""
    #: for a silver script: rows that it inserted, updated or deleted in any table
    changed_rows: int | None = None
    #: what PostgreSQL or a function warned of
    warnings: tuple[str, ...] = ()

    @property
    def is_uneventful(self) -> bool:
        """Whether a check passed, or a script changed no rows."""
        return self.broken_by == 0 or self.changed_rows == 0


@dataclass(frozen=True)
class Result:
    """What a statement returned: the names of its columns (None: nothing), its first rows, and how many there are."""

    columns: list[str] | None
    rows: list[tuple[Any, ...]]
    count: int


def run_statement(cursor: Cursor, script: Script, statement: Statement, rows: int = 1) -> Result:
    """Run a statement to its end and fetch its first `rows` rows: what is fetched is held in memory.

    Must be called in a transaction. Raises ScriptError as `file:line: PostgreSQL's message`.
    """
    first = statement.words[0] if statement.words else ""
    declare = DECLARE if first in READING and not NOT_BY_CURSOR.get(first, set()).intersection(statement.words) else ""
    with located(script, statement, len(declare)):
        cursor.execute(declare + statement.text)  # without arguments, so that psycopg2 does not interpret %
        if declare:  # the comment shows in pg_stat_activity what runs
            cursor.execute(f"FETCH {rows} FROM elt_rows -- {' '.join(statement.text[:1000].split())}")
        columns = [column.name for column in cursor.description] if cursor.description is not None else None
        found = cursor.fetchmany(rows) if columns is not None else []
        count = cursor.rowcount
        if declare:
            cursor.execute("MOVE FORWARD ALL FROM elt_rows")
            count += int((cursor.statusmessage or "0").split()[-1])
            cursor.execute("CLOSE elt_rows")
    return Result(columns, found, count)


def run_script(connection: Connection, script: Script) -> ScriptResult:
    """Run every statement of a script in the caller's transaction.

    Raises ScriptError as `file:line: PostgreSQL's message`.
    """
    began = time.monotonic()
    del connection.notices[:]
    row_counts: tuple[int, int, int, int] | None = None
    with connection.cursor() as cursor:
        for statement in statements(script.text):
            result = run_statement(cursor, script, statement)
            if result.columns == ROW_COUNTS:
                # no row if the script filters the result with a WHERE
                counts = result.rows[0] if result.rows else (0, 0, 0, 0)
                inserted, updated, deleted, unchanged = map(sum, zip(row_counts or (0, 0, 0, 0), counts, strict=True))
                row_counts = inserted, updated, deleted, unchanged
    found = dict.fromkeys(text for text in connection.notices if text.startswith("WARNING"))
    warnings = tuple(re.sub("^[A-Z]+: +", "", text.strip(), flags=re.MULTILINE) for text in found)
    shown = tuple(text.replace("\n", "\n    ") for text in warnings[:MAX_WARNINGS])
    return ScriptResult(script.path, time.monotonic() - began, row_counts, warnings=shown)


@contextmanager
def located(script: Script, statement: Statement, before: int = 0) -> Iterator[None]:
    """Raise an error of this statement as ScriptError with its file and line.

    before: how many characters were sent in front of it.
    """
    try:
        yield
    except psycopg2.Error as error:
        position = int(error.diag.statement_position or 1) - 1 - before
        line = statement.line + statement.text.count("\n", 0, max(0, position))
        is_old = error.pgcode == UNDEFINED_COLUMN and statement.words[:1] == ("comment",) and script.layer != "gold"
        remedy = OLD_TABLE if is_old else ""
        raise translate(error, f"{script.path}:{line}", ScriptError, remedy) from error
