"""Runs checks: SQL that must return no rows."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import psycopg2

from lib.config.jobs import Check
from lib.errors import CheckFailed, ScriptError
from lib.postgres.connection import Connection
from lib.transform.scripts import ScriptResult, run_statement
from lib.transform.statements import statements

#: how many rows of a failing check its message shows
EXAMPLES = 5
#: the part of a check's comment that begins like this, to the end of the comment
WHAT_TO_DO = re.compile(r"^-- (What to do:.*(?:\n--.*)*)", re.MULTILINE)
#: For a cursor: returns every value except numbers as PostgreSQL's text. Python cannot hold a date before the year 1 or
#: after 9999.
AS_TEXT = psycopg2.extensions.new_type(
    tuple(oid for oid in psycopg2.extensions.string_types if oid not in psycopg2.NUMBER.values),
    "AS_TEXT",
    lambda value, cursor: value,
)


def run_check(connection: Connection, check: Check) -> ScriptResult:
    """Run a check. Its last statement returns the rows that break its rule.

    The result has a message with the first of these rows. Raises CheckFailed with this message if the check has
    on_failure "error", ScriptError if it cannot run.
    """
    began = time.monotonic()
    with connection.cursor() as cursor:
        psycopg2.extensions.register_type(AS_TEXT, cursor)
        for statement in statements(check.script.text):
            result = run_statement(cursor, check.script, statement, EXAMPLES)
        if result.columns is None:
            where = f"{check.script.path}:{statement.line}"
            raise ScriptError(f"{where}: the last statement returns no result: a check must end with a SELECT")
    count = result.count
    claim = f"{check.script.path}: {_broken_claim(check, count, result.columns, result.rows)}" if count else ""
    if count and check.on_failure == "error":
        raise CheckFailed(claim)
    return ScriptResult(check.script.path, time.monotonic() - began, broken_by=count, claim=claim)


def _broken_claim(check: Check, count: int, columns: Sequence[str], examples: Sequence[tuple[Any, ...]]) -> str:
    """The message of a failed check: the number of rows, the first of them, and what its script says to do."""
    lines = [
        "  ".join(f"{name}={_shown(value)}" for name, value in zip(columns, row, strict=True))[:300] for row in examples
    ]
    more = [f"and {count - len(lines):,} more"] if count > len(lines) else []
    advice = WHAT_TO_DO.search(check.script.text)
    to_do = [" ".join(advice[1].replace("\n--", " ").split())] if advice else []
    return "\n    ".join([f"check failed: {count:,} row{'s' if count > 1 else ''}", *lines, *more, *to_do])


def _shown(value: object) -> str:
    return "NULL" if value is None else repr(value) if isinstance(value, str) else str(value)
