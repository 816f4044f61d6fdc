"""Runs a SQL script statement by statement, so that an error names file and line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection
from lib.postgres.driver_errors import translate
from lib.transform.statements import Statement, statements

#: columns of elt.publish_rows' answer, by which it is known
ROW_COUNTS = ["inserted", "updated", "deleted", "unchanged"]


@dataclass(frozen=True)
class ScriptResult:
    """What a script did: seconds, and the rows that elt.publish_rows inserted, updated, deleted, left alone."""

    path: str
    seconds: float
    row_counts: tuple[int, int, int, int] | None = None
    #: for a check: rows that break its claim
    broken_by: int | None = None
    #: for a silver script: rows that it inserted, updated or deleted in any table
    changed_rows: int | None = None

    @property
    def is_uneventful(self) -> bool:
        """Whether a check passed, or a script changed nothing."""
        return self.broken_by == 0 or self.changed_rows == 0


def run_script(connection: Connection, script: Script) -> ScriptResult:
    """Run every statement of a script in the caller's transaction.

    Raises ScriptError as `file:line: PostgreSQL's message`.
    """
    began = time.monotonic()
    row_counts: tuple[int, int, int, int] | None = None
    with connection.cursor() as cursor:
        for statement in statements(script.text):
            with located(script, statement):
                cursor.execute(statement.text)  # without arguments, so that % is only a character
            if cursor.description and [column.name for column in cursor.description] == ROW_COUNTS:
                # a WHERE may have left no row of it
                counts = cursor.fetchone() or (0, 0, 0, 0)
                inserted, updated, deleted, unchanged = map(sum, zip(row_counts or (0, 0, 0, 0), counts, strict=True))
                row_counts = inserted, updated, deleted, unchanged
    return ScriptResult(script.path, time.monotonic() - began, row_counts)


@contextmanager
def located(script: Script, statement: Statement) -> Iterator[None]:
    """Let an error of this statement say in which file and line it is. Raises ScriptError."""
    try:
        yield
    except psycopg2.Error as error:
        position = error.diag.statement_position
        line = statement.line + (statement.text.count("\n", 0, int(position) - 1) if position else 0)
        raise translate(error, f"{script.path}:{line}", ScriptError) from error
