"""elt.publish_rows on PostgreSQL 16 and 18: all cases that a naive diff gets wrong, and that no reader waits.

Not tested, because the wheel's servers lack ICU, libxml and contrib: nondeterministic collations, xml, citext, hstore.
The same code is tested with numeric (equal values, other bytes), json (no "=") and vector ("=" in another schema).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import Error, errors
from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

from lib.postgres.embedded.server import Server
from tests.support import ROOT
from tests.support.databases import connected, on, sql, sql_once

ELT = ROOT / "lib" / "elt_schema"


class Counts(NamedTuple):
    inserted: int
    updated: int
    deleted: int
    unchanged: int


class Publisher:
    """A connection in autocommit that publishes into silver.t."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.connect = connect
        self.connection = connect()
        self.sql("SET client_min_messages = warning")

    @property
    def version(self) -> int:
        return self.connection.server_version // 10000

    def sql(self, text: str) -> list[tuple]:
        return sql(self.connection, text)

    def rows(self, columns: str = "*", table: str = "silver.t") -> list[tuple]:
        return self.sql(f"SELECT {columns} FROM {table} ORDER BY 1")

    def publish(self, source: str, *scope: str) -> Counts:
        """Publish a temporary table given as "(k, v) AS VALUES ('a', 1)", as a silver script does."""
        self.sql(f"DROP TABLE IF EXISTS pg_temp.t_now; CREATE TEMP TABLE t_now {source}")
        return self.call("silver.t", "t_now", *scope)

    def call(self, *arguments: str | None) -> Counts:
        places = ", ".join(["%s"] * len(arguments))
        (row,) = sql(self.connection, f"SELECT * FROM elt.publish_rows({places})", *arguments)
        return Counts(*row)

    def publish_twice(self, source: str, *scope: str) -> Counts:
        """Publish twice. The second time must change nothing."""
        first = self.publish(source, *scope)
        assert self.sql("SELECT relname FROM pg_class WHERE relname LIKE '\\_elt%'") == []
        again = self.call("silver.t", "t_now", *scope)
        assert again == (0, 0, 0, first.inserted + first.updated + first.unchanged)
        return first

    def refused(self, source: str, *scope: str) -> str:
        """Publish something that must be refused and change nothing. Returns message, detail and hint."""
        before = self.rows("t::text", "silver.t AS t")
        with pytest.raises(Error) as caught:
            self.publish(source, *scope)
        assert self.rows("t::text", "silver.t AS t") == before
        assert self.sql("SELECT relname FROM pg_class WHERE relname LIKE '\\_elt%'") == []
        return told(caught.value)


def told(error: Error) -> str:
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return "\n".join(part for part in parts if part)


#: a type whose "=" is in another schema: the wheel has the extension vector, Debian's PostgreSQL 15 has citext
VECTOR = """
    CREATE SCHEMA ext;
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
            CREATE EXTENSION vector SCHEMA ext;
        ELSE
            CREATE EXTENSION citext SCHEMA ext;
            CREATE DOMAIN ext.vector AS ext.citext;
        END IF;
    END $$;
"""


@pytest.fixture(scope="module", params=on(16, 18), ids=lambda version: f"postgresql_{version}")
def server(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Server:
    """A server with the functions in database "postgres". One for all tests is five times faster than one per test."""
    database = Publisher(lambda: connect(servers[request.param]))
    database.sql("DROP SCHEMA IF EXISTS elt CASCADE; CREATE SCHEMA elt")
    database.sql((ELT / "publish_rows.sql").read_text("utf-8") + (ELT / "add_column.sql").read_text("utf-8"))
    yield servers[request.param]
    database.sql("DROP SCHEMA elt CASCADE")
    database.connection.close()


def connect(server: Server) -> Connection:
    return connected(server.connect_args("postgres"))


@pytest.fixture
def db(server: Server) -> Iterator[Publisher]:
    """A new connection, an empty schema silver, and nothing left of other tests in ext, audits and public."""
    opened: list[Connection] = []

    def connect_for_this_test() -> Connection:
        opened.append(connect(server))
        return opened[-1]

    publisher = Publisher(connect_for_this_test)
    publisher.sql("CREATE SCHEMA silver")
    yield publisher
    for connection in opened:
        connection.close()
    sql_once(
        server.connect_args("postgres"),
        "SET client_min_messages = warning; DROP SCHEMA IF EXISTS silver, ext, audits, public CASCADE;"
        " CREATE SCHEMA public",
    )


# ---- the ordinary day -----------------------------------------------------------------------------------------------


def test_the_target_takes_the_sources_rows_by_column_name_and_the_counts_are_the_days_news(db):
    db.sql(
        "CREATE TABLE silver.t (k text PRIMARY KEY, v int); INSERT INTO silver.t VALUES ('a', 1), ('b', 2), ('c', 3)"
    )
    assert db.publish_twice("(v, k) AS VALUES (2, 'b'), (4, 'c'), (NULL, 'd'), (6, 'e')") == (2, 1, 1, 1)
    assert db.rows() == [("b", 2), ("c", 4), ("d", None), ("e", 6)]


@pytest.mark.parametrize("percent", [0, 1, 90])
def test_only_rows_that_differ_are_touched(db, percent):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text)")
    assert db.publish("(k, v) AS SELECT n, 'v' || n FROM generate_series(1, 1000) AS n") == (1000, 0, 0, 0)
    places = dict(db.rows("k, ctid"))
    changed = f"n % 100 < {percent}"
    counts = db.publish_twice(
        f"(k, v) AS SELECT n, CASE WHEN {changed} THEN 'new' ELSE 'v' || n END FROM generate_series(1, 1000) AS n"
    )
    assert counts == (0, 10 * percent, 0, 1000 - 10 * percent)
    moved = {k for k, ctid in db.rows("k, ctid") if places[k] != ctid}
    assert moved == {n for n in range(1, 1001) if n % 100 < percent}


def test_an_empty_target_is_filled_in_key_order_and_analysed(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text)")
    assert db.publish("(k, v) AS SELECT n, 'v' FROM generate_series(500, 1, -1) AS n") == (500, 0, 0, 0)
    assert [k for (k,) in db.sql("SELECT k FROM silver.t ORDER BY ctid")] == list(range(1, 501))
    assert db.sql("SELECT reltuples FROM pg_class WHERE oid = 'silver.t'::regclass") == [(500,)]


def test_statistics_are_renewed_after_many_changes_and_not_after_few(db):
    db.sql(
        "CREATE TABLE silver.t (k int PRIMARY KEY, v int);"
        " INSERT INTO silver.t SELECT n, 0 FROM generate_series(1, 100) AS n"
    )
    tuples = "SELECT reltuples FROM pg_class WHERE oid = 'silver.t'::regclass"
    assert db.publish("(k, v) AS SELECT n, n / 100 FROM generate_series(1, 100) AS n") == (0, 1, 0, 99)
    assert db.sql(tuples) == [(-1,)]
    assert db.publish("(k, v) AS SELECT n, 1 FROM generate_series(1, 100) AS n") == (0, 99, 0, 1)
    assert db.sql(tuples) == [(100,)]


def test_an_empty_source_empties_the_target(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); INSERT INTO silver.t VALUES (1), (2)")
    assert db.publish_twice("(k) AS SELECT 1 WHERE false") == (0, 0, 2, 0)
    assert db.rows() == []


def test_it_works_again_and_again_in_one_transaction_and_leaves_no_temporary_table(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v numeric(4, 1))")
    db.sql("BEGIN")
    assert db.publish_twice("(k, v) AS VALUES (1, 0::numeric), (2, 0.0)") == (2, 0, 0, 0)
    for v in range(1, 5):
        assert db.publish_twice(f"(k, v) AS VALUES (1, {v}::numeric), (2, 0.0)") == (0, 1, 0, 1)
    db.sql("COMMIT")
    assert db.rows() == [(1, 4), (2, 0)]


def test_a_trigger_of_the_target_may_publish_into_another_table(db):
    db.sql("""
        CREATE TABLE silver.t (k int PRIMARY KEY, v int);
        CREATE TABLE silver.copy (k int PRIMARY KEY, v int);
        INSERT INTO silver.t VALUES (1, 1), (2, 2);
        INSERT INTO silver.copy VALUES (1, 1);
        CREATE FUNCTION publish_copy() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM elt.publish_rows(''silver.copy'', ''silver.t''); RETURN NULL; END';
        CREATE TRIGGER copy AFTER INSERT OR UPDATE OR DELETE ON silver.t EXECUTE FUNCTION publish_copy();
    """)
    assert db.publish_twice("(k, v) AS VALUES (2, 3), (3, 3)") == (1, 1, 1, 0)
    assert db.rows(table="silver.copy") == [(2, 3), (3, 3)]


# ---- locks and other sessions ---------------------------------------------------------------------------------------


def test_no_reader_waits_and_no_lock_is_stronger_than_share_row_exclusive(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int); CREATE VIEW silver.v AS SELECT * FROM silver.t")
    reader = db.connect()
    for source in ("VALUES (1, 1), (2, 2)", "VALUES (2, 3), (4, 4)"):
        published = db.rows()
        db.sql("BEGIN")
        db.publish(f"(k, v) AS {source}")
        assert sql(reader, "SET lock_timeout = '50ms'; SELECT * FROM silver.v ORDER BY k") == published
        strong = db.sql("""
            SELECT relation::regclass::text, mode
            FROM pg_locks
            JOIN pg_class ON pg_class.oid = relation
            WHERE pid = pg_backend_pid() AND relpersistence <> 't' AND mode IN ('ExclusiveLock', 'AccessExclusiveLock')
        """)
        held = db.sql("SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'silver.t'::regclass")
        db.sql("COMMIT")
        assert strong == []
        assert ("ShareRowExclusiveLock",) in held


def test_a_row_that_another_session_changes_meanwhile_is_not_lost_sight_of(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int); INSERT INTO silver.t VALUES (1, 1), (2, 2)")
    db.sql("CREATE TEMP TABLE t_now (k, v) AS VALUES (1, 1), (2, 9)")
    colleague = db.connect()
    sql(colleague, "BEGIN; UPDATE silver.t SET v = 100; INSERT INTO silver.t VALUES (3, 3)")
    counts: list[Counts] = []
    publishing = threading.Thread(target=lambda: counts.append(db.call("silver.t", "t_now")))
    publishing.start()
    sql(
        colleague,
        """
        DO $$ BEGIN
            WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'silver.t'::regclass AND NOT granted) LOOP
                PERFORM pg_sleep(0.001);
            END LOOP;
        END $$;
        COMMIT
        """,
    )
    publishing.join()
    assert counts == [(0, 2, 1, 0)]
    assert db.rows() == [(1, 1), (2, 9)]


def test_a_transaction_that_cannot_see_others_rows_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); SET default_transaction_isolation = 'repeatable read'")
    message = db.refused("(k) AS VALUES (1)")
    assert "a REPEATABLE READ transaction does not see rows that were committed after it began" in message
    assert "BEGIN ISOLATION LEVEL READ COMMITTED;" in message


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column_type", "old", "new"),
    [
        ("circle", "<(0,0),2>", "<(9,9),2>"),  # "=" compares areas
        ("box", "(1,1),(0,0)", "(6,6),(5,5)"),
        ("numeric", "1.0", "1.00"),  # equal values, other text
        ("float8", "0", "-0"),
        ("interval", "1 day", "24 hours"),
        ("bpchar", "a ", "a"),
        ("json", '{"a":1}', '{"a": 1}'),  # no "="
        ("point", "(0,0)", "(0,1)"),
        ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
        ("text[]", "{a,NULL}", "{a,b}"),
        ("numeric[]", "{1.0}", "{1.00}"),
        ("int4range", "[1,2)", "[1,3)"),
        ("silver.with_json", '(1,"{}")', '(1,"[]")'),
        ("silver.short_text", "a", "b"),
        ("silver.mood", "sad", "glad"),
        ("ext.vector", "[1,2]", "[1,3]"),  # "=" is not in search_path
        ("uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
        ("bytea", r"\x00", r"\x0000"),
        ("timestamptz", "2026-03-29 00:00:00+00", "2026-03-29 00:00:00.000001+00"),
        ("text", "é", "e\u0301"),
    ],
)
def test_a_value_of_any_type_that_looks_different_is_a_change(db, column_type, old, new):
    db.sql(VECTOR)
    db.sql("""
        CREATE TYPE silver.with_json AS (a int, b json);
        CREATE DOMAIN silver.short_text AS text CHECK (length(VALUE) < 3);
        CREATE TYPE silver.mood AS ENUM ('sad', 'glad');
    """)
    db.sql(f"CREATE TABLE silver.t (k int PRIMARY KEY, v {column_type}, w int)")
    value = f"SELECT {{}}, %s::{column_type}, 1"
    with db.connection.cursor() as cursor:
        rows = " UNION ALL ".join(value.format(k) for k in (1, 2, 3, 4))
        cursor.execute(f"INSERT INTO silver.t {rows}", (old, old, None, old))
        source = cursor.mogrify(f"(k, v, w) AS {rows}", (old, new, None, None)).decode()
    assert db.publish_twice(source) == (0, 2, 0, 2)
    assert db.sql("SELECT v::text FROM silver.t WHERE k <= 2 ORDER BY k") == db.sql(
        "SELECT v::text FROM t_now WHERE k <= 2 ORDER BY k"
    )
    assert db.sql("SELECT k FROM silver.t WHERE v IS NULL ORDER BY k") == [(3,), (4,)]


def test_nan_equals_nan_and_null_equals_null(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, a float8, b numeric, c json, d date)")
    db.sql("INSERT INTO silver.t VALUES (1, 'NaN', 'NaN', NULL, 'infinity'), (2, NULL, NULL, NULL, NULL)")
    assert db.publish("AS SELECT * FROM silver.t") == (0, 0, 0, 2)


def test_long_values_are_compared_whole(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text, w json)")
    long = "repeat(md5(k::text), 10000)"
    source = f"AS SELECT k, {long} || {{}} AS v, to_json({long} || {{}}) AS w FROM generate_series(1, 3) AS k"
    assert db.publish_twice(source.format("''", "''")) == (3, 0, 0, 0)
    assert db.publish_twice(source.format("k / 3", "k / 2")) == (0, 3, 0, 0)
    assert db.publish_twice(source.format("k / 3", "k / 3")) == (0, 1, 0, 2)


def test_other_types_are_assigned_once_and_do_not_differ_again_tomorrow(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v numeric(10, 2), w varchar(5), x bigint, y char(3), z date)")
    source = (
        "AS SELECT 1::smallint AS k, 10 / 3.0 AS v, 'abcde' AS w, 7 AS x, 'a' AS y,"
        " '2026-01-01 10:00'::timestamp AS z"
    )
    assert db.publish_twice(source) == (1, 0, 0, 0)
    db.sql("UPDATE silver.t SET v = 0")
    assert db.publish_twice(source) == (0, 1, 0, 0)
    assert db.rows("k, v::text, w, x, y, z::text") == [(1, "3.33", "abcde", 7, "a  ", "2026-01-01")]


def test_a_type_that_differs_in_nothing_but_its_name_is_assigned_too(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v numeric); INSERT INTO silver.t VALUES (1, 0.5), (2, 0.5)")
    assert db.publish_twice("(k, v) AS VALUES (1, 0.5::float8), (2, 0.25)") == (0, 1, 0, 1)


@pytest.mark.parametrize("there", ["", "INSERT INTO silver.t (k) VALUES (1)"])
def test_a_value_that_the_target_cannot_hold_is_an_error_and_never_cut(db, there):
    db.sql("CREATE DOMAIN silver.short AS text CHECK (length(VALUE) < 3)")
    db.sql(f"CREATE TABLE silver.t (k int PRIMARY KEY, v varchar(3), w int, x silver.short); {there}")
    for value, column, message in (
        ("'abcd'", "v", "value too long for type character varying(3)\nTypes differ: v: text to character varying(3)"),
        ("'1'", "w", 'column "w" is of type integer but expression is of type text\nTypes differ: w: text to integer'),
        ("'abcd'", "x", "value for domain silver.short violates check constraint"),
    ):
        told = db.refused(f"(k, {column}) AS VALUES (1, {value})")
        assert told.startswith(f"cannot publish t_now into silver.t: {message}")


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_compared_by_the_primary_keys_own_operator_wherever_its_schema_is(db):
    db.sql(VECTOR)
    db.sql("""
        CREATE TABLE silver.t (k ext.vector, l text, v int, PRIMARY KEY (k, l));
    """)
    db.sql("INSERT INTO silver.t VALUES ('[1,2]', 'a', 1), ('[1,3]', 'a', 1)")
    assert db.publish_twice("(k, l, v) AS VALUES ('[1,2]'::ext.vector, 'a', 2), ('[1,2]', 'b', 1)") == (1, 1, 1, 0)


def test_a_key_of_another_collation_meets_its_row(db):
    db.sql(
        'CREATE TABLE silver.t (k text COLLATE "C" PRIMARY KEY, v int);'
        " INSERT INTO silver.t VALUES ('a', 1), ('b', 1)"
    )
    assert db.publish_twice("""AS SELECT k COLLATE "POSIX" AS k, v FROM (VALUES ('a', 2), ('c', 1)) AS x (k, v)""") == (
        1,
        1,
        1,
        0,
    )


def test_an_equal_key_of_another_image_is_an_update_of_the_key(db):
    db.sql("CREATE TABLE silver.t (k numeric PRIMARY KEY, v int); INSERT INTO silver.t VALUES (1.0, 1), (2.0, 1)")
    assert db.publish_twice("(k, v) AS VALUES (1.00, 1), (2.0, 1)") == (0, 1, 0, 1)
    assert db.rows("k::text, v") == [("1.00", 1), ("2.0", 1)]


def test_included_columns_are_no_key(db):
    db.sql("CREATE TABLE silver.t (v int, k int, PRIMARY KEY (k) INCLUDE (v)); INSERT INTO silver.t VALUES (1, 1)")
    assert db.publish_twice("(k, v) AS VALUES (1, 2)") == (0, 1, 0, 0)


@pytest.mark.parametrize("there", ["", "(1, 'a', 0)", "(1, 'a', 0), (2, 'b', 0)"])
@pytest.mark.parametrize("values", ["(2, 'b', 5), (2, 'b', 6)", "(2, 'b', 0), (2, 'b', 0)"])
def test_a_key_that_is_twice_in_the_source_is_refused_by_name_whether_new_or_known(db, there, values):
    db.sql("CREATE TABLE silver.t (k int, l text, v int, PRIMARY KEY (l, k))")
    if there:
        db.sql(f"INSERT INTO silver.t VALUES {there}")
    message = db.refused(f"(k, l, v) AS VALUES (1, 'a', 0), {values}, (3, 'c', 0)")
    assert message == (
        "cannot publish t_now into silver.t: the primary key (l, k) is not unique in the source\nFor example (b,2)"
    )


@pytest.mark.parametrize("there", ["", "(1, 'a')"])
def test_a_key_without_a_value_is_refused_with_its_row(db, there):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text)")
    if there:
        db.sql(f"INSERT INTO silver.t VALUES {there}")
    message = db.refused("(k, v) AS VALUES (1, 'a'), (NULL, 'lost'), (NULL, 'lost')")
    assert "the source has NULL in the primary key (k)" in message
    assert "(,lost)" in message


def test_a_deferrable_primary_key_does_not_put_the_refusal_off_until_commit(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
    assert "not unique in the source" in db.refused("(k) AS VALUES (1), (1)")
    assert db.publish_twice("(k) AS VALUES (1), (2)") == (2, 0, 0, 0)


def test_a_table_without_a_primary_key_is_refused_with_the_line_that_adds_it(db):
    db.sql('CREATE TABLE silver.t (k int, "L" text NOT NULL, v int)')
    assert "ALTER TABLE silver.t ADD PRIMARY KEY (<columns that identify a row>);" in db.refused("(k) AS VALUES (1)")
    db.sql('CREATE UNIQUE INDEX ON silver.t ("L", k)')
    assert 'ALTER TABLE silver.t ADD PRIMARY KEY (k, "L");' in db.refused("(k) AS VALUES (1)")


def test_a_key_without_overlaps_is_no_key_to_tell_rows_apart_by(db):
    if db.version < 18:
        with pytest.raises(errors.SyntaxError):
            db.sql("CREATE TABLE silver.t (k int4range, v daterange, PRIMARY KEY (k, v WITHOUT OVERLAPS))")
        return
    db.sql("CREATE TABLE silver.t (k int4range, v daterange, PRIMARY KEY (k, v WITHOUT OVERLAPS))")
    assert "no primary key that identifies a row" in db.refused(
        "AS SELECT int4range(1, 2) AS k, daterange(NULL, NULL) AS v"
    )


def test_a_table_that_inherits_a_second_row_of_the_same_key_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int); CREATE TABLE silver.child () INHERITS (silver.t)")
    db.sql("INSERT INTO silver.t VALUES (1, 1); INSERT INTO silver.child VALUES (1, 1)")
    assert "do tables inherit from it?" in db.refused("(k, v) AS VALUES (1, 1)")


# ---- columns --------------------------------------------------------------------------------------------------------


def test_a_column_that_the_target_lacks_is_refused_with_the_line_that_adds_it(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int)")
    message = db.refused("""AS SELECT 1 AS k, 1.5::numeric(4, 2) AS "Width", 'x' AS colour""")
    assert message == (
        'cannot publish t_now into silver.t: the target has no column "Width", colour\n'
        "SELECT elt.add_column('silver.t', 'Width', 'numeric(4,2)');\n"
        "SELECT elt.add_column('silver.t', 'colour', 'text');"
    )
    db.sql(message.split("\n", 1)[1])
    assert db.publish_twice("""AS SELECT 1 AS k, 1.5::numeric(4, 2) AS "Width", 'x' AS colour""") == (1, 0, 0, 0)


def test_a_source_without_the_whole_key_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int, l int, v int, PRIMARY KEY (k, l))")
    assert "the source has no column l of the primary key" in db.refused("(k, v) AS VALUES (1, 1)")


def test_columns_that_the_source_lacks_keep_their_value_and_have_their_default_in_new_rows(db):
    db.sql(
        "CREATE TABLE silver.t (k int PRIMARY KEY, v int, note text DEFAULT 'new', id int GENERATED ALWAYS AS IDENTITY)"
    )
    db.publish("(k, v) AS VALUES (1, 1), (2, 2)")
    db.sql("UPDATE silver.t SET note = 'mine' WHERE k = 1")
    assert db.publish_twice("(k, v) AS VALUES (1, 9), (3, 3)") == (1, 1, 1, 0)
    assert db.rows("k, v, note, id") == [(1, 9, "mine", 1), (3, 3, "new", 3)]


def test_a_key_only_table_gains_and_loses_rows(db):
    db.sql("CREATE TABLE silver.t (k int, l text, PRIMARY KEY (k, l)); INSERT INTO silver.t VALUES (1, 'a'), (2, 'b')")
    assert db.publish_twice("(k, l) AS VALUES (2, 'b'), (3, 'c')") == (1, 0, 1, 1)


@pytest.mark.parametrize(
    "name",
    ["t", "s", "d", "op", "in_t", "target", "source", "columns", "Upper", 'quo"te', "a%s", "$1", "é", "k k", "select"],
)
def test_columns_and_tables_may_have_any_name(db, name):
    quoted = '"' + name.replace('"', '""') + '"'
    db.sql(f"CREATE TABLE silver.{quoted} ({quoted} int PRIMARY KEY, v int, note text)")
    db.sql(f"CREATE TEMP TABLE {quoted} AS SELECT 1 AS {quoted}, 1 AS v")
    arguments = (f"silver.{quoted}", quoted, f"{quoted} < 5")
    assert db.call(*arguments) == (1, 0, 0, 0)
    assert db.call(*arguments) == (0, 0, 0, 1)
    db.sql(f"UPDATE {quoted} SET v = 2; INSERT INTO {quoted} VALUES (2, 2)")
    assert db.call(*arguments) == (1, 1, 0, 0)
    db.sql(f"INSERT INTO {quoted} VALUES (2, 2)")
    with pytest.raises(errors.UniqueViolation, match="not unique in the source"):
        db.call(*arguments)


def test_rows_of_nothing_but_null_beside_the_key_are_rows(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int); INSERT INTO silver.t VALUES (1, NULL), (2, NULL)")
    assert db.publish_twice("(k, v) AS VALUES (2, NULL::int), (3, NULL)") == (1, 0, 1, 1)


def test_the_source_may_be_a_view_a_table_that_others_write_or_the_target_itself(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v float8); CREATE TABLE silver.s (k int, v float8)")
    db.sql(
        "CREATE SEQUENCE silver.reads;"
        " CREATE VIEW silver.v AS SELECT k, nextval('silver.reads')::float8 AS v FROM silver.s"
    )
    db.sql("INSERT INTO silver.s VALUES (1, 1), (2, 2)")
    assert db.call("silver.t", "silver.v") == (2, 0, 0, 0)
    assert db.call("silver.t", "silver.v") == (0, 2, 0, 0)
    assert db.rows() == [(1, 3), (2, 4)]
    assert db.sql("SELECT last_value FROM silver.reads") == [(4,)]  # a view is evaluated once
    assert db.call("silver.t", "silver.s") == (0, 2, 0, 0)
    assert db.call("silver.t", "silver.t") == (0, 0, 0, 2)
    assert db.rows() == [(1, 1), (2, 2)]


def test_a_temporary_table_is_found_before_a_table_of_the_same_name(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); CREATE TABLE t_now (k int); INSERT INTO t_now VALUES (7)")
    assert db.publish("(k) AS VALUES (1)") == (1, 0, 0, 0)
    assert db.rows() == [(1,)]


@pytest.mark.parametrize(
    "kind", ["VIEW silver.x AS SELECT 1 AS k", "MATERIALIZED VIEW silver.x AS SELECT 1 AS k", "SEQUENCE silver.x"]
)
def test_only_a_table_can_be_published_into(db, kind):
    db.sql(f"CREATE TEMP TABLE t_now (k) AS VALUES (1); CREATE {kind}")
    with pytest.raises(errors.WrongObjectType, match="cannot publish t_now into silver.x: silver.x is not a table"):
        db.call("silver.x", "t_now")


def test_a_null_argument_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); CREATE TEMP TABLE t_now (k) AS VALUES (1)")
    for arguments in ((None, "t_now"), ("silver.t", None), ("silver.t", "t_now", None)):
        with pytest.raises(errors.NullValueNotAllowed):
            db.call(*arguments)


def test_an_identity_key_takes_the_sources_values(db):
    db.sql("CREATE TABLE silver.t (k int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int)")
    assert db.publish_twice("(k, v) AS VALUES (7, 1), (8, 1)") == (2, 0, 0, 0)
    assert db.publish_twice("(k, v) AS VALUES (7, 2), (9, 1)") == (1, 1, 1, 0)


def test_a_column_that_the_target_generates_always_is_refused_in_the_source(db):
    db.sql("CREATE TABLE silver.t (k text PRIMARY KEY, id int GENERATED ALWAYS AS IDENTITY, v int)")
    refused = db.refused("(k, id, v) AS VALUES ('a', 7, 1), ('b', 8, 1)")
    assert "the target generates column id ALWAYS, so no other value can be set" in refused
    db.sql(refused.partition("; or ")[2].splitlines()[0])
    assert db.publish_twice("(k, id, v) AS VALUES ('a', 7, 1), ('b', 8, 1)") == (2, 0, 0, 0)
    assert db.publish_twice("(k, id, v) AS VALUES ('a', 70, 1), ('b', 8, 1)") == (0, 1, 0, 1)


def test_generated_columns_are_left_to_the_target(db):
    kinds = ["STORED", "VIRTUAL"] if db.version >= 18 else ["STORED"]
    for kind in kinds:
        db.sql(
            "DROP TABLE IF EXISTS silver.t;"
            f" CREATE TABLE silver.t (k int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v * 2) {kind})"
        )
        assert db.publish_twice("(k, v, w) AS VALUES (1, 1, 0), (2, 2, 0)") == (2, 0, 0, 0)
        assert db.publish_twice("(k, v, w) AS VALUES (1, 3, 0), (2, 2, 1)") == (0, 1, 0, 1)
        assert db.rows() == [(1, 3, 6), (2, 2, 4)]


def test_a_generated_key_is_refused(db):
    db.sql("CREATE TABLE silver.t (v int, k int GENERATED ALWAYS AS (v * 2) STORED PRIMARY KEY)")
    assert "the source has no column k of the primary key, or the target generates it" in db.refused(
        "(k, v) AS VALUES (2, 1)"
    )


def test_dropped_columns_of_either_side_do_not_count(db):
    db.sql("CREATE TABLE silver.t (gone int, k int PRIMARY KEY, v int); ALTER TABLE silver.t DROP gone")
    db.sql(
        "CREATE TEMP TABLE s_now (v int, extra int, k int); ALTER TABLE s_now DROP extra;"
        " INSERT INTO s_now VALUES (1, 2)"
    )
    assert db.call("silver.t", "s_now") == (1, 0, 0, 0)
    assert db.call("silver.t", "s_now") == (0, 0, 0, 1)


def test_a_table_may_have_1500_columns(db):
    columns = [f"c{number}" for number in range(1500)]
    types = ["int", "text", "numeric"]
    db.sql(
        f"CREATE TABLE silver.t (k int PRIMARY KEY, {', '.join(f'{c} {types[i % 3]}' for i, c in enumerate(columns))})"
    )
    source = (
        "AS SELECT * FROM silver.t WHERE false; INSERT INTO t_now (k, c7) SELECT n, n FROM generate_series(1, 20) AS n"
    )
    assert db.publish(source) == (20, 0, 0, 0)
    assert db.publish_twice(f"{source}; UPDATE t_now SET c1498 = 'x' WHERE k = 3") == (0, 1, 0, 19)


# ---- constraints, triggers, policies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column_type", "constraint", "a", "b"),
    [
        ("int", "UNIQUE (v)", "1", "2"),
        ("int4range", "EXCLUDE USING gist (v WITH &&)", "'[1,5)'", "'[5,9)'"),
    ],
)
def test_rows_swap_a_unique_value_once_the_printed_statement_is_typed(db, column_type, constraint, a, b):
    db.sql(
        f"CREATE TABLE silver.t (k int PRIMARY KEY, v {column_type}, note text, id int GENERATED ALWAYS AS IDENTITY)"
    )
    db.sql(f"ALTER TABLE silver.t ADD {constraint}")
    db.sql(f"INSERT INTO silver.t VALUES (1, {a}, 'one'), (2, {b}, 'two'), (3, NULL, 'three')")
    source = f"AS SELECT k, v::{column_type} AS v FROM (VALUES (1, {b}), (2, {a}), (3, NULL)) AS x (k, v)"
    refused = db.refused(source)
    assert "Key (v)=(" in refused
    db.sql(refused.partition("let PostgreSQL check the constraint after the last row: ")[2].splitlines()[0])
    assert db.publish_twice(source) == (0, 2, 0, 1)
    assert db.rows("k, note, id") == [(1, "one", 1), (2, "two", 2), (3, "three", 3)]


def test_a_swap_under_an_index_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text); CREATE UNIQUE INDEX ON silver.t (lower(v))")
    db.sql("INSERT INTO silver.t VALUES (1, 'A'), (2, 'b')")
    assert "a constraint can be DEFERRABLE, an index cannot" in db.refused("(k, v) AS VALUES (1, 'b'), (2, 'A')")


def test_a_unique_value_may_move_to_another_key(db):
    db.sql(
        "CREATE TABLE silver.t (k int PRIMARY KEY, v int UNIQUE); INSERT INTO silver.t VALUES (1, 1), (2, 2), (3, 3)"
    )
    assert db.publish_twice("(k, v) AS VALUES (2, 1), (3, 4), (5, 3)") == (1, 2, 1, 0)


def test_a_value_that_is_truly_not_unique_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int UNIQUE)")
    assert "Key (v)=(7) already exists" in db.refused("(k, v) AS VALUES (1, 7), (2, 7)")
    db.publish("(k, v) AS VALUES (1, 1), (2, 2)")
    assert "Key (v)=(7) already exists" in db.refused("(k, v) AS VALUES (1, 7), (2, 7)")


LONG = "(SELECT string_agg(md5(n::text || chr(64 + v)), '') FROM generate_series(1, 100) AS n)"


@pytest.mark.parametrize("before", ["", "INSERT INTO silver.t VALUES ('there', 'x', 0)"])
@pytest.mark.parametrize(("column", "index"), [("k", "t_pkey"), ("name", "t_name")])
def test_a_value_too_long_for_an_index_is_named_with_its_column(db, column, index, before):
    """Random text, because an index compresses a repeated one."""
    db.sql("CREATE TABLE silver.t (k text PRIMARY KEY, name text, v int)")
    db.sql(f"CREATE INDEX t_name ON silver.t (v, name); {before}")
    long = ("v::text", LONG) if column == "name" else (LONG, "'x'")
    source = f"AS SELECT {long[0]} AS k, {long[1]} AS name, v FROM generate_series(1, 1) AS v"
    beginning = db.sql(f"SELECT left({LONG}, 60) FROM (VALUES (1)) AS one (v)")[0][0]
    refused = db.refused(source)
    assert f"a value of {column} has 3200 characters, too many for the index {index}: {beginning}..." in refused
    assert "Leave such rows out and list them" in refused


def test_a_value_that_grows_too_long_for_an_index_is_named_too(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, name text, v int); CREATE INDEX t_name ON silver.t (name)")
    db.sql("INSERT INTO silver.t VALUES (1, 'short', 1)")
    refused = db.refused(f"AS SELECT 1 AS k, {LONG} AS name, v FROM generate_series(1, 1) AS v")
    assert "a value of name has 3200 characters, too many for the index t_name: " in refused


@pytest.mark.parametrize(
    ("index", "count"), [("CREATE INDEX i ON silver.t (name)", 400), ("CREATE INDEX i ON silver.t (lower(name))", 100)]
)
def test_a_long_value_is_named_where_postgresql_names_no_index_or_no_column(db, index, count):
    """It names no index for more than 8,191 bytes."""
    db.sql(f"CREATE TABLE silver.t (k int PRIMARY KEY, name text); {index}")
    long = f"(SELECT string_agg(md5(n::text), '') FROM generate_series(1, {count}) AS n)"
    refused = db.refused(f"AS SELECT 1 AS k, {long} AS name")
    assert f"a value of name has {32 * count} characters, too many for " in refused


def test_a_table_with_too_many_columns_is_refused_on_the_first_day(db):
    """On the second day, no table of differences could be made."""
    columns = ", ".join(f"c{number} boolean" for number in range(1599))
    db.sql(f"CREATE TABLE silver.t (k int PRIMARY KEY, {columns})")
    refused = db.refused("(k) AS VALUES (1)")
    assert "the target has 1,600 columns" in refused and "Split the table in two with the same key." in refused
    db.sql("ALTER TABLE silver.t DROP COLUMN c0")
    assert db.publish_twice("(k) AS VALUES (1)") == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("timing", "body"),
    [
        ("BEFORE INSERT OR UPDATE", "NEW.v := upper(NEW.v); RETURN NEW;"),
        ("BEFORE INSERT", "NEW.k := NEW.k + 10; RETURN NEW;"),
        ("AFTER INSERT", "UPDATE silver.t SET v = upper(v) WHERE k = NEW.k; RETURN NULL;"),
    ],
)
def test_a_trigger_that_changes_values_is_named(db, timing, body):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text, note text)")
    db.sql(f"CREATE FUNCTION silver.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    db.sql(f'CREATE TRIGGER "Low" {timing} ON silver.t FOR EACH ROW EXECUTE FUNCTION silver.f()')
    changed = 2 if "NEW.k :=" in body else 1
    for _ in range(1 if "AFTER" in timing else 2):
        db.publish("(k, v) AS VALUES (1, 'a'), (2, 'B')")
        assert f"WARNING:  {changed} rows of silver.t are not what was published" in db.connection.notices[-1]
        assert 'because a trigger changes them: "Low"' in db.connection.notices[-1]
        assert "Drop the trigger (DROP TRIGGER .. ON silver.t;)" in db.connection.notices[-1]


def test_a_trigger_that_fills_a_column_of_its_own_is_fine(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v text, note text)")
    db.sql(
        "CREATE FUNCTION silver.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'seen'; RETURN NEW; END $$"
    )
    db.sql("CREATE TRIGGER fills BEFORE INSERT OR UPDATE ON silver.t FOR EACH ROW EXECUTE FUNCTION silver.f()")
    assert db.publish_twice("(k, v) AS VALUES (1, 'a'), (2, NULL)") == (2, 0, 0, 0)
    assert db.publish_twice("(k, v) AS VALUES (1, NULL), (2, 'b')") == (0, 2, 0, 0)
    assert db.connection.notices == []


def test_rows_that_a_delete_takes_along_are_announced(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); INSERT INTO silver.t VALUES (1), (2)")
    db.sql("CREATE TABLE notes (k int REFERENCES silver.t ON DELETE CASCADE); INSERT INTO notes VALUES (1)")
    db.sql("CREATE TABLE harmless (k int REFERENCES silver.t)")
    assert db.publish("(k) AS VALUES (1), (2)") == (0, 0, 0, 2)
    assert db.connection.notices == []
    assert db.publish("(k) AS VALUES (2)") == (0, 0, 1, 1)
    assert (
        "rows deleted from silver.t: 1; foreign keys with ON DELETE change public.notes, too\n"
        in db.connection.notices[-1]
    )


@pytest.mark.parametrize(
    ("event", "values"),
    [("INSERT", "(1, 1), (2, 2), (3, 3)"), ("UPDATE", "(1, 1), (2, 9)"), ("DELETE", "(1, 1)")],
)
@pytest.mark.parametrize("swallow", ["trigger", "rule"])
def test_rows_that_a_trigger_or_a_rule_swallows_do_not_go_unseen(db, event, values, swallow):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, v int); INSERT INTO silver.t VALUES (1, 1), (2, 2)")
    if swallow == "rule":
        db.sql(f"CREATE RULE swallow AS ON {event} TO silver.t DO INSTEAD NOTHING")
    else:
        db.sql("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        db.sql(f"CREATE TRIGGER swallow BEFORE {event} ON silver.t FOR EACH ROW EXECUTE FUNCTION swallow()")
    message = db.refused(f"(k, v) AS VALUES {values}")
    assert f"{event} on silver.t touched 0 rows instead of 1" in message
    assert "\\d silver.t" in message


def test_a_first_fill_that_a_trigger_swallows_does_not_go_unseen(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY); CREATE RULE swallow AS ON INSERT TO silver.t DO INSTEAD NOTHING")
    assert "INSERT on silver.t touched 0 rows instead of 1" in db.refused("(k) AS VALUES (1)")


def test_a_trigger_of_the_target_sees_pg_catalog_alone_whatever_the_callers_path_is(db):
    db.sql("""
        CREATE TABLE silver.t (k int PRIMARY KEY);
        CREATE SCHEMA audits;
        CREATE TABLE audits.audit (k int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO audit VALUES (NEW.k); RETURN NEW; END';
        CREATE TRIGGER note BEFORE INSERT ON silver.t FOR EACH ROW EXECUTE FUNCTION note();
        SET search_path = audits, public;
    """)
    assert 'relation "audit" does not exist' in db.refused("(k) AS VALUES (1), (2)")
    db.sql("""
        CREATE OR REPLACE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO audits.audit VALUES (NEW.k); RETURN NEW; END'
    """)
    assert db.publish_twice("(k) AS VALUES (1), (2)") == (2, 0, 0, 0)
    assert db.rows(table="audits.audit") == [(1,), (2,)]


def test_rows_that_a_policy_hides_are_an_error_and_not_a_wrong_result(db):
    db.sql("""
        CREATE TABLE silver.t (k int PRIMARY KEY, v int);
        INSERT INTO silver.t VALUES (1, 1), (2, 2);
        ALTER TABLE silver.t ENABLE ROW LEVEL SECURITY;
        ALTER TABLE silver.t FORCE ROW LEVEL SECURITY;
        CREATE POLICY only_one ON silver.t USING (k = 1);
    """)
    loader = "a_loader"
    db.sql(
        f"CREATE ROLE {loader}; GRANT USAGE ON SCHEMA elt, silver TO {loader}; ALTER TABLE silver.t OWNER TO {loader}"
    )
    try:
        db.sql(
            f"GRANT CREATE ON SCHEMA silver TO {loader}; SET ROLE {loader};"
            " CREATE TEMP TABLE t_now (k, v) AS VALUES (1, 5)"
        )
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security policy"):
            db.call("silver.t", "t_now")
        db.sql("ALTER TABLE silver.t NO FORCE ROW LEVEL SECURITY")
        assert db.call("silver.t", "t_now") == (0, 1, 1, 0)
    finally:
        db.sql(f"RESET ROLE; DROP OWNED BY {loader}; DROP ROLE {loader}")


# ---- partitions -----------------------------------------------------------------------------------------------------


def test_rows_of_a_partitioned_table_are_joined_by_key_and_land_in_their_partition(db):
    db.sql("""
        CREATE TABLE silver.t (day int, k int, v text, PRIMARY KEY (day, k)) PARTITION BY LIST (day);
        CREATE TABLE silver.t_1 PARTITION OF silver.t FOR VALUES IN (1);
        CREATE TABLE silver.t_2 (v text, k int NOT NULL, day int NOT NULL);
        ALTER TABLE silver.t ATTACH PARTITION silver.t_2 FOR VALUES IN (2);
        INSERT INTO silver.t VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (2, 2, 'd');
    """)
    assert db.publish_twice("(day, k, v) AS VALUES (1, 1, 'a'), (1, 2, 'x'), (2, 2, 'd'), (2, 3, 'e')") == (1, 1, 1, 2)
    assert db.sql("SELECT day, k, v FROM silver.t ORDER BY day, k") == [
        (1, 1, "a"),
        (1, 2, "x"),
        (2, 2, "d"),
        (2, 3, "e"),
    ]
    assert db.publish_twice("(day, k, v) AS VALUES (2, 2, 'z')", "day = 2") == (0, 1, 1, 0)


# ---- scope ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def days(db) -> Publisher:
    db.sql("CREATE TABLE silver.t (day date, k int, v int, PRIMARY KEY (day, k))")
    db.sql(
        "INSERT INTO silver.t VALUES ('2026-01-01', 1, 1), ('2026-01-01', 2, 2), ('2026-01-02', 1, 1),"
        " ('2026-01-02', 2, 2)"
    )
    return db


@pytest.mark.parametrize(
    "scope",
    ["day = '2026-01-02'", "t.day = '2026-01-02'", "day >= '2026-01-02' -- and later", "false OR day = '2026-01-02'"],
)
def test_rows_outside_of_the_scope_stay_as_they_are(days, scope):
    source = "(day, k, v) AS VALUES (DATE '2026-01-02', 2, 3), ('2026-01-02', 3, 3)"
    assert days.publish_twice(source, scope) == (1, 1, 1, 0)
    assert days.sql("SELECT day::text, k, v FROM silver.t ORDER BY 1, 2") == [
        ("2026-01-01", 1, 1),
        ("2026-01-01", 2, 2),
        ("2026-01-02", 2, 3),
        ("2026-01-02", 3, 3),
    ]


def test_an_empty_scope_of_a_filled_table_is_filled(days):
    assert days.publish_twice("(day, k, v) AS VALUES (DATE '2026-01-03', 1, 1)", "day = '2026-01-03'") == (1, 0, 0, 0)
    assert days.rows("count(*)") == [(5,)]


def test_source_rows_outside_of_the_scope_are_refused(days):
    message = days.refused(
        "(day, k, v) AS VALUES (DATE '2026-01-02', 1, 1), ('2026-01-05', 9, 9)", "day = '2026-01-02'"
    )
    assert "the source has rows outside of day = '2026-01-02'; primary key (day, k)" in message
    assert "(2026-01-05,9)" in message


def test_source_rows_of_which_the_scope_says_neither_yes_nor_no_are_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, region text)")
    assert "For example (1)" in db.refused("(k, region) AS VALUES (1, NULL::text), (2, 'EU')", "region = 'EU'")


def test_a_key_that_the_target_has_outside_of_the_scope_is_refused(db):
    db.sql("CREATE TABLE silver.t (k int PRIMARY KEY, region text); INSERT INTO silver.t VALUES (1, 'US'), (2, 'EU')")
    message = db.refused("(k, region) AS VALUES (1, 'EU'), (2, 'EU')", "region = 'EU'")
    assert "the target has rows of the same primary key (k) outside of region = 'EU'\nFor example (1)" in message


def test_a_scope_can_only_use_columns_that_the_source_has_too(days):
    assert 'column "v" does not exist' in days.refused("(day, k) AS VALUES (DATE '2026-01-02', 1)", "v = 1")


# ---- any rows -------------------------------------------------------------------------------------------------------

KEYS = st.tuples(st.sampled_from(["a", "A", "", "ä", "a b,\"'"]), st.sampled_from(["1", "1.0", "2", "-3", "NaN"]))
VALUES = st.tuples(
    st.sampled_from([None, "", "x", "X", "\\", "line\nline", "💡"]),
    st.sampled_from([None, "0", "7", "-1"]),
    st.sampled_from([None, "0", "0.0", "1", "1.00", "NaN"]),
    st.sampled_from([None, "0", "-0", "NaN", "Infinity", "0.1"]),
    st.sampled_from([None, "{}", "{ }", "null", "[1]"]),
    st.sampled_from([None, "2026-01-01", "infinity"]),
    st.sampled_from([None, "true", "false"]),
    st.sampled_from([None, "{}", "{NULL}", "{1,2}", "[0:1]={1,2}"]),
    st.sampled_from([None, "<(0,0),1>", "<(1,0),1>"]),
)
TABLE = "(k text, v1 text, v2 int, n numeric, v3 numeric, v4 float8, v5 json, v6 date, v7 bool, v8 int[], v9 circle{})"
COLUMNS = "k, n, v1, v2, v3, v4, v5, v6, v7, v8, v9"
TEMPLATE = (
    "(%s, %s::numeric, %s, %s::int, %s::numeric, %s::float8, %s::json, %s::date, %s::bool, %s::int[], %s::circle)"
)


def equal_key(row: tuple) -> tuple:
    """The same for keys that PostgreSQL considers equal."""
    return row[0], row[1] if row[1] == "NaN" else Decimal(row[1])


@given(
    old=st.lists(st.tuples(KEYS, VALUES), max_size=8, unique_by=lambda row: equal_key(row[0])),
    new=st.lists(st.tuples(KEYS, VALUES), max_size=8, unique_by=lambda row: equal_key(row[0])),
    kept=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_both_held_the_target_equals_the_source_afterwards_and_the_counts_are_right(db, old, new, kept):
    new = [
        old_row
        for old_row in old[: int(len(old) * kept)]
        if equal_key(old_row[0]) not in {equal_key(k) for k, _ in new}
    ] + new
    was = {equal_key(key): (*key, *values) for key, values in old}
    now = {equal_key(key): (*key, *values) for key, values in new}
    db.sql(f"DROP TABLE IF EXISTS silver.t, t_now; CREATE TABLE silver.t {TABLE.format(', PRIMARY KEY (n, k)')}")
    db.sql(f"CREATE TEMP TABLE t_now {TABLE.format('')}")
    for table, rows in (("silver.t", was), ("t_now", now)):
        if rows:
            with db.connection.cursor() as cursor:
                execute_values(cursor, f"INSERT INTO {table} ({COLUMNS}) VALUES %s", list(rows.values()), TEMPLATE)
    image = "SELECT x::text FROM {} AS x ORDER BY 1"
    expected = db.sql(image.format("t_now"))
    updated = sum(was[key] != row for key, row in now.items() if key in was)

    counts = db.call("silver.t", "t_now")

    assert db.sql(image.format("silver.t")) == expected
    assert counts == (
        len(now.keys() - was.keys()),
        updated,
        len(was.keys() - now.keys()),
        len(now.keys() & was.keys()) - updated,
    )
    assert db.call("silver.t", "t_now") == (0, 0, 0, len(now))
