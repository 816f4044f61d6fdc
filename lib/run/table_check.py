"""Finds changes of a CREATE TABLE IF NOT EXISTS that reached no table, because the table was there already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psycopg2

from lib.config.jobs import Job, Script
from lib.elt_schema.strangers import ScriptPath
from lib.postgres.connection import Connection, execute, query
from lib.postgres.transaction import TransactionSettings, transaction
from lib.transform.statements import Statement, created_by, statements, tokens

#: columns of the table as the statement makes it that the table lacks, or has with another type, or with NULL
DIFFERENCES = """
    SELECT
        wanted.attname,
        quote_ident(wanted.attname),
        format_type(wanted.atttypid, wanted.atttypmod) AS type,
        format_type(here.atttypid, here.atttypmod) AS type_here
    FROM pg_attribute AS wanted
    LEFT JOIN pg_attribute AS here
        ON here.attrelid = to_regclass(%s)
        AND here.attname = wanted.attname
        AND NOT here.attisdropped
    WHERE wanted.attrelid = 'pg_temp.elt_wanted'::regclass AND wanted.attnum > 0 AND (
        here.attname IS NULL
        OR (here.atttypid, here.atttypmod) <> (wanted.atttypid, wanted.atttypmod)
        OR wanted.attnotnull > here.attnotnull
    )
    ORDER BY wanted.attnum
"""


def tables_that_differ(connection: Connection, jobs: Iterable[Job], path: ScriptPath) -> list[str]:
    """A message `file:line: ..` for each column that a script defines otherwise than the table has it, with the
    statement that changes the table.

    Each CREATE TABLE IF NOT EXISTS of a bronze or silver script makes a temporary table, which is rolled back. One that
    cannot be tried out alone is left to the run.
    """
    found: list[str] = []
    settings = TransactionSettings(search_path=path.path)
    with transaction(connection, settings, commit=False):
        for script in (script for job in jobs for script in job.transform if script.layer != "gold"):
            for statement in statements(script.text):
                execute(connection, "SAVEPOINT elt_wanted")
                with suppress(psycopg2.Error):
                    found += _differences(connection, script, statement)
                execute(connection, "ROLLBACK TO SAVEPOINT elt_wanted")
    return found


def _differences(connection: Connection, script: Script, statement: Statement) -> Iterator[str]:
    if statement.words[:1] != ("create",) or "exists" not in statement.words[:6] or "partition" in statement.words[-5:]:
        return
    made = created_by(statement)
    if made is None or made.kind != "table" or "." not in made.name:
        return
    execute(connection, f"CREATE TEMP TABLE elt_wanted {_after_name(statement)}")
    table = query(connection, "SELECT to_regclass(%s)::text", (made.name,))[0][0]
    for name, quoted, wanted, here in query(connection, DIFFERENCES, (table,)) if table else ():
        if here is None:
            has, remedy = "lacks it", f"add to the script: SELECT elt.add_column('{table}', '{name}', '{wanted}');"
        elif here == wanted:
            wanted += " NOT NULL"
            has, remedy = "allows NULL", f"in psql: ALTER TABLE {table} ALTER COLUMN {quoted} SET NOT NULL;"
        else:
            has = f"has {here}"
            remedy = f"in psql: ALTER TABLE {table} ALTER COLUMN {quoted} TYPE {wanted} USING {quoted}::{wanted};"
        yield (
            f"{script.path}:{_line_of(statement, name)}: {name} is {wanted} here, but {table} {has}:"
            f" CREATE TABLE IF NOT EXISTS changes no table that is there. To change it, {remedy}"
        )


def _after_name(statement: Statement) -> str:
    """The statement from behind the table's name on."""
    words = [(token.lower(), place + len(token)) for kind, token, place in tokens(statement.text) if kind != "space"]
    exists = next(number for number, (word, _) in enumerate(words) if word == "exists")
    return statement.text[words[exists + 3][1] :]


def _line_of(statement: Statement, column: str) -> int:
    found = re.search(rf"(?i)[(,\s]\"?{re.escape(column)}\"?\s", statement.text.partition("(")[2])
    before = len(statement.text) - len(statement.text.partition("(")[2])
    return statement.line + statement.text.count("\n", 0, before + (found.start() + 1 if found else 0))
