"""elt.add_column: it adds a column once, and on all other days it locks nothing."""

from __future__ import annotations

import pytest
from psycopg2 import errors
from psycopg2.extensions import connection as Connection

from lib.stop import start_thread
from tests.support import ROOT
from tests.support.databases import sql

FUNCTION = ROOT / "lib" / "elt_schema" / "add_column.sql"


@pytest.fixture
def connection(database_on_each) -> Connection:
    """A table silver.t of two rows."""
    connection = database_on_each.connect()
    sql(connection, "CREATE SCHEMA elt; CREATE SCHEMA silver; " + FUNCTION.read_text("utf-8"))
    sql(
        connection,
        "CREATE TABLE silver.t (k int PRIMARY KEY, w numeric(10, 2)); INSERT INTO silver.t VALUES (1, 1), (2, 2)",
    )
    return connection


def add_column(connection: Connection, *arguments: str | None) -> bool:
    return sql(connection, "SELECT elt.add_column(%s, %s, %s)", *arguments)[0][0]


def test_a_missing_column_is_added_once_and_may_be_null(connection):
    assert add_column(connection, "silver.t", "color", "varchar(3)") is True
    assert add_column(connection, "silver.t", "color", "varchar(3)") is False
    assert sql(connection, "SELECT k, w, color FROM silver.t ORDER BY k") == [(1, 1, None), (2, 2, None)]


def test_readers_go_on_while_it_waits_for_one_of_them(connection, database_on_each):
    """Otherwise they would wait behind ALTER TABLE for as long as it waits."""
    first, other = database_on_each.connect(), database_on_each.connect()
    sql(first, "BEGIN; SELECT FROM silver.t")
    sql(other, "SET lock_timeout = '1s'")
    sql(connection, "SET lock_timeout = '1500ms'")
    adding = start_thread(lambda: add_column(connection, "silver.t", "color", "text"), "adding")
    while not adding.done():
        sql(other, "SELECT FROM silver.t")
    assert isinstance(adding.exception(), errors.LockNotAvailable)
    sql(first, "COMMIT")
    sql(connection, "BEGIN")
    assert add_column(connection, "silver.t", "color", "text") is True
    assert sql(connection, "SHOW lock_timeout") == [("1500ms",)]
    sql(connection, "COMMIT")


def test_a_column_that_is_there_costs_no_lock_on_the_table_and_leaves_nothing_behind(connection):
    sql(connection, "BEGIN")
    add_column(connection, "silver.t", "w", "numeric(10, 2)")
    add_column(connection, "silver.t", "k", "int")
    assert sql(connection, "SELECT mode FROM pg_locks WHERE relation = 'silver.t'::regclass") == []
    assert sql(connection, "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_elt%'") == [(0,)]


@pytest.mark.parametrize(
    ("is_type", "called"),
    [
        ("varchar(3)", "character varying(3)"),
        ("numeric(12)", "decimal ( 12 , 0 )"),
        ("timestamptz(3)", "timestamp (3) with time zone"),
        ("int[]", "integer[]"),
        ("char", "character(1)"),
        ('"char"', '"char"'),
        ('silver."Mood"', 'silver."Mood"'),
    ],
)
def test_a_type_may_be_spelt_in_any_way(connection, is_type, called):
    sql(connection, "CREATE TYPE silver.\"Mood\" AS ENUM ('sad')")
    assert add_column(connection, "silver.t", "v", is_type) is True
    assert add_column(connection, "silver.t", "v", called) is False


@pytest.mark.parametrize("wanted", ["numeric(12, 2)", "numeric", "text", "numeric(10,2)[]"])
def test_a_column_of_another_type_is_refused_with_what_it_is_and_the_line_to_think_about(connection, wanted):
    with pytest.raises(errors.DuplicateColumn) as caught:
        add_column(connection, "silver.t", "w", wanted)
    wanted = wanted.replace(" ", "")
    assert caught.value.diag.message_primary == f"silver.t.w is numeric(10,2), not {wanted}"
    assert caught.value.diag.message_hint.endswith(f"ALTER TABLE silver.t ALTER COLUMN w TYPE {wanted};")


def test_a_column_may_have_any_name_and_may_have_been_dropped_before(connection):
    for name in ("Upper", 'quo"te', "select", "%s", "wanted", "present"):
        assert add_column(connection, "silver.t", name, "text") is True
        assert add_column(connection, "silver.t", name, "text") is False
    sql(connection, 'ALTER TABLE silver.t DROP "select"')
    assert add_column(connection, "silver.t", "select", "int") is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("silver.t", "v", "txt"),
        ("silver.t", "v", None),
        ("silver.t", None, "text"),
        (None, "v", "text"),
        ("silver.t", "v", "text NOT NULL DEFAULT ''"),
        ("silver.t", "v", "text; DROP TABLE silver.t"),
    ],
)
def test_what_is_no_table_no_name_or_no_type_is_refused(connection, arguments):
    with pytest.raises((errors.UndefinedObject, errors.SyntaxError)):
        add_column(connection, *arguments)
    assert sql(
        connection, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'silver.t'::regclass AND attnum > 0"
    ) == [(2,)]
