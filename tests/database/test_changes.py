"""The store of changes: what a run changed can be replayed backwards, is shown to whoever may read it, then dropped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from psycopg2 import errors

from lib.config.jobs import Extract, Load
from lib.elt_schema.installation import install
from lib.load.changes import recording
from lib.postgres.transaction import TransactionSettings, apply_settings, transaction
from lib.run.changes import note_other_statements
from lib.run.row_counter import RowCounter
from tests.support.databases import EmptyDatabase, sql
from tests.support.project import Project
from tests.support.roles import Role

#: how a script may end: well, or with its group rolled back
ENDS = ("RELEASE SAVEPOINT script", "ROLLBACK TO SAVEPOINT script")
COUNTS = "SELECT inserted, updated, deleted, by_other_statements, kept_as IS NOT NULL FROM elt.changes"


class Runs:
    """A database with schema elt, in which a test plays the publish transactions of runs."""

    def __init__(self, database: EmptyDatabase) -> None:
        self.connection = database.connect()
        install(self.connection)
        self.number = 0

    def sql(self, text: str, *args: object) -> list[tuple]:
        return sql(self.connection, text, *args)

    @contextmanager
    def run(self, *, keep_changes: bool = True) -> Iterator[None]:
        """The publish transaction of a new run."""
        self.number += 1
        self._settings = TransactionSettings(2, run_id=self.number, keep_changes=keep_changes)
        with transaction(self.connection, self._settings):
            yield

    @contextmanager
    def script(self, end: str = ENDS[0]) -> Iterator[None]:
        """A script of the run, counted as the publisher does."""
        counter = RowCounter(self.connection)
        counter.new()
        apply_settings(self.connection, self._settings)
        self.sql("SAVEPOINT script")
        yield
        note_other_statements(self.connection, self.number, counter.new().values())
        self.sql(end)

    def publish(self, table: str, rows: str, *scope: str) -> None:
        """rows: as in "(k, v) AS VALUES ('a', 1)"."""
        self.sql(f"DROP TABLE IF EXISTS pg_temp.news; CREATE TEMP TABLE news {rows}")
        places = ", %s" * len(scope)
        self.sql(f"SELECT * FROM elt.publish_rows(%s, 'news'{places})", table, *scope)

    def counts(self, table: str, run: int | None = None) -> tuple:
        """Inserted, updated, deleted, by other statements, whether rows are kept; () if nothing is recorded."""
        rows = self.sql(f"{COUNTS} WHERE run_id = %s AND relation = %s", run or self.number, table)
        return rows[0] if rows else ()

    def shown(self, table: str, run: int | None = None) -> list[tuple]:
        return self.sql(
            "SELECT operation, key, before, after FROM elt.row_changes WHERE run_id = %s AND relation = %s"
            " ORDER BY operation, key, before, after",
            run or self.number,
            table,
        )

    def kept(self, table: str, run: int | None = None) -> str:
        ((name,),) = self.sql(
            "SELECT kept_as FROM elt.changes WHERE run_id = %s AND relation = %s", run or self.number, table
        )
        return f"elt_changes.{name}"


def played_on(database: EmptyDatabase) -> Runs:
    played = Runs(database)
    played.sql("CREATE TABLE silver.t (k integer PRIMARY KEY, v text); INSERT INTO silver.t VALUES (1, 'a'), (2, 'b')")
    return played


@pytest.fixture
def runs(database: EmptyDatabase) -> Runs:
    return played_on(database)


# ---- replayed backwards, today's table gives yesterday's ------------------------------------------------------------

#: values that jsonb or a plain "=" would not keep apart: 1.0 and 1.00, 0 and -0, the text of a json, bounds of an array
VALUES = {
    "v": ["'x'", "''", "NULL", "'it''s \"q\"'", "E'a\\nb'"],
    "f": ["0", "'-0'", "'NaN'", "NULL", "1e300"],
    "j": ["'{\"a\":1}'", "'{\"a\": 1}'", "'null'", "NULL"],
    "p": ["ROW(1, '[1]')::silver.pair", "ROW(1, '[1 ]')::silver.pair", "ROW(NULL, NULL)::silver.pair", "NULL"],
    "bounds": ["'{1,2}'", "'[0:1]={1,2}'", "NULL"],
    **{name: ["'before'", "'after'", "NULL"] for name in ("_elt_side", "kept", "side", "content", "a", "b")},
}
ODD = """
CREATE TYPE silver.pair AS (n integer, j json);
CREATE TABLE silver."odd ""one" (
    k1 text, k2 numeric, v text, f double precision, j json, p silver.pair, bounds integer[], _elt_side text,
    kept text, side text, content text, a text, b text,
    given text DEFAULT 'by default', id bigint GENERATED ALWAYS AS IDENTITY,
    size integer GENERATED ALWAYS AS (length(v)) STORED, PRIMARY KEY (k1, k2)
)
"""
ODD_NAME = 'silver."odd ""one"'


def table(runs: Runs, columns: Sequence[str], of: str = ODD_NAME, where: str = "true") -> dict[tuple, tuple]:
    """Each row as text, by key. A numeric key is the same as 1.0 and as 1.00."""
    names = ", ".join(f'"{column}"::text' for column in columns)
    rows = runs.sql(f"SELECT k1, k2, {names} FROM {of} WHERE {where}")
    found = {row[:2]: row[2:] for row in rows}
    assert len(found) == len(rows)
    return found


def columns_of(runs: Runs, of: str) -> list[str]:
    rows = runs.sql("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                    " AND NOT attisdropped ORDER BY attnum", of)  # fmt: skip
    return [name for (name,) in rows]


def publish_anything(runs: Runs, dice: random.Random, columns: Sequence[str]) -> None:
    """One call with rows of any kind."""
    given = [column for column in columns if column in VALUES or column.startswith("new")]
    keys = [(name, number) for name in ("a", "b'") for number in range(3)]
    scope = dice.choice([(), (), ("k1 = 'a'",)])
    chosen = [key for key in keys if dice.random() < 0.6 and (not scope or key[0] == "a")]
    rows = [
        ", ".join(
            ["'" + name.replace("'", "''") + "'", f"{number}{dice.choice(['', '.0', '.00'])}"]
            + [dice.choice(VALUES.get(column, VALUES["v"])) for column in given]
        )
        for name, number in chosen
    ]
    names = ", ".join(f'"{column}"' for column in given)
    runs.sql(
        f"DROP TABLE IF EXISTS pg_temp.news; CREATE TEMP TABLE news AS SELECT k1, k2, {names} FROM {ODD_NAME} LIMIT 0"
    )
    for row in rows:
        runs.sql(f"INSERT INTO news VALUES ({row})")
    places = ", %s" * len(scope)
    runs.sql(f"SELECT * FROM elt.publish_rows(%s, 'news'{places})", ODD_NAME, *scope)


def replay(runs: Runs, seed: int) -> None:
    """Play ten days, then take them back one by one."""
    dice = random.Random(seed)
    yesterdays: list[tuple[list[str], dict[tuple, tuple]]] = []
    begin, altered = runs.number, set()
    for day in range(10):
        columns = columns_of(runs, ODD_NAME)
        yesterdays.append((columns, table(runs, columns)))
        with runs.run():
            if dice.random() < 0.2:
                runs.sql(f"SELECT elt.add_column('{ODD_NAME.replace(chr(39), chr(39) * 2)}', 'new {day}', 'text')")
                altered.add(runs.number)
            for _ in range(dice.randint(1, 3)):
                with runs.script(dice.choices(ENDS, (4, 1))[0]):
                    publish_anything(runs, dice, columns_of(runs, ODD_NAME))
    state = table(runs, columns_of(runs, ODD_NAME))
    for day, (columns, yesterday) in reversed([*enumerate(yesterdays, begin + 1)]):
        state = {key: row[: len(columns)] for key, row in state.items()}
        before, recorded = dict(state), runs.counts(ODD_NAME, day)
        if recorded and recorded[4]:
            kept = runs.kept(ODD_NAME, day)
            side = columns_of(runs, kept)[0]
            for key in table(runs, columns, kept, f"{side} = 'after'"):
                del state[key]
            state |= table(runs, columns, kept, f"{side} = 'before'")
            assert {key for *_, row in runs.shown(ODD_NAME, day) if row for key in row} <= {*columns_of(runs, ODD_NAME)}
        elif recorded:
            # a run that alters an empty table may have emptied it, so its filling does not count as the first
            first = runs.sql("SELECT first_filling FROM elt.changes WHERE run_id = %s", day)
            assert first == [(True,)] or first == [(False,)] and day in altered
            state = {}
        assert state == yesterday, f"seed {seed}, day {day}"
        if recorded and recorded[4]:
            both = before.keys() & state.keys()
            assert recorded[:4] == (
                len(before.keys() - state.keys()),
                sum(before[key] != state[key] for key in both),
                len(state.keys() - before.keys()),
                0,
            )
        elif not recorded:
            assert state == before


@pytest.fixture(scope="module")
def odd_runs(module_database: EmptyDatabase) -> Runs:
    return Runs(module_database)


def make_odd_table(runs: Runs, *, fills_itself: bool) -> None:
    """Anew. fills_itself: it has columns that no script publishes."""
    runs.sql(f"DROP TABLE IF EXISTS {ODD_NAME}; DROP TYPE IF EXISTS silver.pair CASCADE")
    runs.sql(ODD)
    if not fills_itself:
        runs.sql(f"ALTER TABLE {ODD_NAME} DROP COLUMN given, DROP COLUMN id, DROP COLUMN size")


@pytest.mark.parametrize("fills_itself", [True, False])
def test_replayed_backwards_todays_table_gives_yesterdays(odd_runs: Runs, fills_itself: bool) -> None:
    make_odd_table(odd_runs, fills_itself=fills_itself)
    for seed in range(2):
        replay(odd_runs, seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(100, 400, 50))
def test_replayed_backwards_at_length(odd_runs: Runs, first: int) -> None:
    for seed in range(first, first + 50):
        if seed % 10 == 0:  # columns add up
            make_odd_table(odd_runs, fills_itself=seed % 20 == 0)
        replay(odd_runs, seed)


# ---- what is recorded -----------------------------------------------------------------------------------------------


def test_calls_of_one_run_are_merged_first_before_and_last_after(database_on_each: EmptyDatabase) -> None:
    runs = played_on(database_on_each)
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'a1'), (3, 'c'), (4, 'd')")
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'a2'), (2, 'b'), (4, 'd2')")
    assert runs.shown("silver.t") == [
        ("inserted", {"k": 4}, None, {"k": 4, "v": "d2"}),
        ("updated", {"k": 1}, {"k": 1, "v": "a"}, {"k": 1, "v": "a2"}),
    ]
    assert runs.counts("silver.t") == (1, 1, 0, 0, True)


def test_what_is_again_as_it_was_is_no_change(runs: Runs) -> None:
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (3, 'c')")
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'a'), (2, 'b')")
    assert runs.counts("silver.t") == ()
    assert runs.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'elt_changes'::regnamespace") == [(0,)]


def test_rows_that_are_deleted_and_come_again_are_merged_too(runs: Runs) -> None:
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS SELECT 1, '' WHERE false")
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'a'), (2, 'B')")
    assert runs.shown("silver.t") == [("updated", {"k": 2}, {"k": 2, "v": "b"}, {"k": 2, "v": "B"})]
    assert runs.sql("SELECT first_filling FROM elt.changes") == [(False,)]


def test_a_history_is_recorded_by_its_ranges(runs: Runs) -> None:
    runs.sql("CREATE TABLE silver.h (k int, v text, valid_from date, valid_to date, PRIMARY KEY (k, valid_from))")
    for day, value in enumerate(("a", "b"), 1):
        with runs.run(), runs.script():
            runs.sql(f"DROP TABLE IF EXISTS news; CREATE TEMP TABLE news AS SELECT 1 AS k, '{value}' AS v")
            runs.sql(f"SELECT * FROM elt.publish_history('silver.h', 'news', '2026-01-0{day}')")
    assert runs.counts("silver.h", 1) == (1, 0, 0, 0, False)
    assert [(row[0], row[1]) for row in runs.shown("silver.h")] == [
        ("inserted", {"k": 1, "valid_from": "2026-01-02"}),
        ("updated", {"k": 1, "valid_from": "2026-01-01"}),
    ]


@pytest.mark.parametrize("fills_itself", [True, False])
def test_what_defaults_identities_and_triggers_set_is_what_is_kept(runs: Runs, fills_itself: bool) -> None:
    runs.sql("""
        CREATE FUNCTION silver.shout() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.v := upper(NEW.v); RETURN NEW; END';
        CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON silver.t FOR EACH ROW EXECUTE FUNCTION silver.shout()
    """)
    if fills_itself:
        runs.sql("ALTER TABLE silver.t ADD note text DEFAULT 'new', ADD id int GENERATED ALWAYS AS IDENTITY")
    for _ in range(2):
        with runs.run(), runs.script():
            runs.publish("silver.t", "(k, v) AS VALUES (1, 'a'), (2, 'bb'), (3, 'c')")
    inserted, updated = (row[3] for row in runs.shown("silver.t", 1))
    assert inserted == {"k": 3, "v": "C"} | ({"note": "new", "id": 3} if fills_itself else {})
    assert updated == {"k": 2, "v": "BB"} | ({"note": "new", "id": 2} if fills_itself else {})
    assert runs.counts("silver.t", 2) == (), "the trigger made of 'c' what was there"


def test_a_first_filling_keeps_only_counts(runs: Runs) -> None:
    runs.sql("DELETE FROM silver.t")
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'a')")
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'b')")
    assert runs.counts("silver.t") == (1, 1, 0, 0, False)
    assert runs.sql("SELECT first_filling FROM elt.changes") == [(True,)]


def test_a_change_of_more_than_half_of_a_large_table_keeps_only_counts(runs: Runs) -> None:
    """One call that changes just half of it, then two that change more together."""
    runs.sql("INSERT INTO silver.t SELECT n, '' FROM generate_series(3, 100001) AS n")
    for scopes in (["k <= 50000"], ["k <= 30000", "k BETWEEN 30001 AND 50001"]):
        with runs.run(), runs.script():
            for scope in scopes:
                runs.publish("silver.t", f"AS SELECT k, v || 'x' AS v FROM silver.t WHERE {scope}", scope)
    assert runs.counts("silver.t", 1) == (0, 50000, 0, 0, True)
    assert runs.counts("silver.t", 2) == (0, 50001, 0, 0, False)


def test_a_table_that_changed_between_two_calls_keeps_only_counts(runs: Runs) -> None:
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'x')")
        runs.sql("SELECT elt.add_column('silver.t', 'w', 'text')")
        runs.publish("silver.t", "(k, v, w) AS VALUES (1, 'x', 'w')")
    assert runs.counts("silver.t") == (0, 2, 1, 0, False)


def test_a_row_that_fills_its_page_is_counted(runs: Runs) -> None:
    columns = ", ".join(f"c{number} bigint DEFAULT 7" for number in range(1016))
    runs.sql(f"CREATE TABLE silver.wide (k bigint PRIMARY KEY, {columns}); INSERT INTO silver.wide VALUES (1)")
    with runs.run(), runs.script():
        runs.publish("silver.wide", "(k, c1) AS VALUES (1, 5)")
    assert runs.counts("silver.wide") == (0, 1, 0, 0, False)


def test_without_keeping_the_counts_are_there(runs: Runs) -> None:
    with runs.run(keep_changes=False), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'x')")
    assert runs.counts("silver.t") == (0, 1, 1, 0, False)


def test_outside_of_a_run_nothing_is_recorded(runs: Runs) -> None:
    runs.publish("silver.t", "(k, v) AS VALUES (1, 'x')")
    assert runs.sql("SELECT count(*) FROM elt.changes") == [(0,)]
    with runs.run(), runs.script():
        runs.sql("CREATE TEMP TABLE mine (k int PRIMARY KEY)")
        runs.publish("mine", "(k) AS VALUES (1)")
    assert runs.sql("SELECT count(*) FROM elt.changes") == [(0,)], "a temporary table"


# ---- by other statements --------------------------------------------------------------------------------------------


def test_what_plain_statements_change_is_counted_beside(runs: Runs) -> None:
    runs.sql(
        "CREATE TABLE silver.plain (k int); CREATE TABLE silver.child (k int REFERENCES silver.t ON DELETE CASCADE)"
    )
    runs.sql("INSERT INTO silver.child VALUES (2)")
    with runs.run():
        with runs.script():
            runs.sql("INSERT INTO silver.plain VALUES (1), (2); UPDATE silver.plain SET k = 3 WHERE k = 1")
            runs.sql("CREATE TEMP TABLE mine AS SELECT 1 AS k; CREATE TABLE silver.short AS SELECT 1 AS k")
            runs.sql("DROP TABLE silver.short")
        with runs.script():
            runs.publish("silver.t", "(k, v) AS VALUES (1, 'x')")
            runs.sql("UPDATE silver.t SET v = 'y'; DELETE FROM silver.plain")
    assert runs.sql("SELECT relation FROM elt.changes ORDER BY 1") == [
        ("silver.child",), ("silver.plain",), ("silver.t",)
    ]  # fmt: skip
    assert runs.counts("silver.plain") == (0, 0, 0, 5, False)
    assert runs.counts("silver.t") == (0, 1, 1, 1, True)
    assert runs.counts("silver.child") == (0, 0, 0, 1, False)


def test_a_partitioned_table_is_recorded_as_one(runs: Runs) -> None:
    runs.sql("""
        CREATE TABLE silver.p (k int PRIMARY KEY, v text) PARTITION BY RANGE (k);
        CREATE TABLE silver.p1 PARTITION OF silver.p FOR VALUES FROM (0) TO (10);
        CREATE TABLE silver.p2 PARTITION OF silver.p DEFAULT PARTITION BY RANGE (k);
        CREATE TABLE silver.p3 PARTITION OF silver.p2 DEFAULT;
        INSERT INTO silver.p VALUES (1, 'a'), (11, 'b')
    """)
    with runs.run(), runs.script():
        runs.publish("silver.p", "(k, v) AS VALUES (1, 'x'), (12, 'y')")
    assert runs.counts("silver.p") == (1, 1, 1, 0, True)
    with runs.run(), runs.script():
        runs.sql("DELETE FROM silver.p3; DELETE FROM silver.p1")
    assert runs.sql("SELECT relation, by_other_statements FROM elt.changes WHERE run_id = 2") == [("silver.p", 2)]


# ---- bronze ---------------------------------------------------------------------------------------------------------


def test_bronze_keeps_the_rows_that_went_and_came_as_often_as_they_did(runs: Runs) -> None:
    """Whole rows, with the columns that fill themselves: what is taken back must have them."""
    runs.sql("""
        CREATE TABLE bronze.b (v text, number int GENERATED ALWAYS AS IDENTITY, w text);
        INSERT INTO bronze.b (v, w) VALUES ('a', ''), ('a', ''), ('b', NULL)
    """)
    load = Load("b", Extract("keboola_table", "in.c-main.b"), "bronze.b")
    with runs.run(), runs.script(), recording(runs.connection, load, 2, 1) as kept:
        assert kept is not None
        for side, change in (
            ("before", "DELETE FROM bronze.b WHERE v = 'a' RETURNING b.*"),
            ("after", "INSERT INTO bronze.b (v, w) VALUES ('c', '') RETURNING b.*"),
        ):
            runs.sql(
                f"WITH changed AS ({change}) INSERT INTO {kept.as_string(runs.connection)}"
                f" SELECT '{side}', changed.* FROM changed RETURNING 1"
            )
    went = [{"v": "a", "number": number, "w": ""} for number in (1, 2)]
    came = {"v": "c", "number": 4, "w": ""}
    assert runs.shown("bronze.b") == [
        *[("deleted", None, row, None) for row in went], ("inserted", None, None, came)
    ]  # fmt: skip
    assert runs.counts("bronze.b") == (1, 0, 2, 0, True)
    with runs.run(), runs.script(), recording(runs.connection, load, 2, 1, is_kept=False) as kept:
        assert kept is None
        runs.sql("DELETE FROM bronze.b; INSERT INTO bronze.b VALUES ('d')")
    assert runs.counts("bronze.b") == (1, 0, 2, 0, False)


def test_a_run_keeps_the_rows_of_bronze_that_differ(monday: Project) -> None:
    monday.put("c", [(str(number), "wednesday" if number == 3 else "monday") for number in range(2, 12)])
    assert monday.run().exit_code == 0, monday.output
    rows = monday.database.sql(
        "SELECT operation, coalesce(before, after) FROM elt.row_changes WHERE relation = 'bronze.c' ORDER BY 1, 2"
    )
    assert rows == [
        ("deleted", {"id": "1", "v": "monday"}),
        ("deleted", {"id": "3", "v": "monday"}),
        ("inserted", {"id": "11", "v": "monday"}),
        ("inserted", {"id": "3", "v": "wednesday"}),
    ]
    assert monday.database.sql("SELECT count(*) FROM elt.changes WHERE by_other_statements > 0") == [(0,)]


# ---- whole runs -----------------------------------------------------------------------------------------------------


def test_a_run_records_what_it_changed_and_a_failed_group_nothing(monday: Project) -> None:
    monday.put("a", [(str(number), "monday") for number in range(1, 10)] + [("10", "x")])
    monday.put("b", [(str(number), "monday") for number in range(1, 10)] + [("10", "y")])
    assert monday.run().exit_code == 1, "a and b differ"
    counts = "SELECT relation, inserted, updated, deleted, by_other_statements FROM elt.changes WHERE run_id = 2"
    assert monday.database.sql(f"{counts} ORDER BY 1") == [
        ("bronze.c", 10, 0, 10, 0),
        ("silver.c", 0, 10, 0, 0),
    ]
    ((changed,),) = monday.database.sql(
        "SELECT jsonb_agg(before || after) FROM elt.row_changes WHERE run_id = 2 AND key = '{\"id\": 7}'"
    )
    assert changed == [{"id": 7, "v": "tuesday"}]
    monday.edit("silver/c.sql", "DROP TABLE", "UPDATE silver.c SET v = v || '!';\nDROP TABLE")
    assert monday.run("c").exit_code == 0
    assert monday.database.sql(counts.replace("= 2", "= 3") + " ORDER BY 1") == [("silver.c", 0, 10, 0, 10)]


def test_rows_are_kept_for_as_many_runs_as_the_settings_say(monday: Project) -> None:
    monday.settings = replace(monday.settings, keep_changes=2)
    reader = None
    for number in range(2, 6):
        monday.put("c", [("1", f"day {number}")] * 1 + [(str(each), "x") for each in range(2, 11)])
        assert monday.run("c").exit_code == 0
        if number == 2:
            reader = monday.database.connect()
            reader.autocommit = False
            sql(reader, "SELECT count(*) FROM elt.row_changes WHERE run_id = 2")
        if number == 3:
            monday.edit("silver/c.sql", "id::integer", "(id || 'x')::integer")
            assert monday.run("c").exit_code == 1, "a failed run is none of the two"
            monday.edit("silver/c.sql", "(id || 'x')::integer", "id::integer")
        kept = "SELECT run_id FROM elt.changes WHERE relation = 'silver.c' AND kept_as IS NOT NULL ORDER BY 1"
        found = [run for (run,) in monday.database.sql(kept)]
        assert found == {2: [2], 3: [2, 3], 4: [2, 3, 5], 5: [2, 5, 6]}[number], "run 2 is being read"
    assert reader is not None
    reader.rollback()
    monday.settings = replace(monday.settings, keep_changes=0)
    assert monday.run("c").exit_code == 0
    assert monday.database.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'elt_changes'::regnamespace") == [
        (0,)
    ]
    assert monday.database.sql("SELECT count(*) FROM elt.changes WHERE relation = 'silver.c'") == [(5,)]


def test_where_the_role_may_not_make_the_schema_rows_are_counted_and_the_printed_statement_helps(
    project: Project, elt: Role
) -> None:
    project.connect_args = elt.connect_args
    project.database.sql(f"REVOKE CREATE ON DATABASE {project.database.name} FROM {elt.name}")
    for schema in ("elt", "elt_staging", "bronze", "silver", "gold"):
        project.database.sql(f"CREATE SCHEMA {schema} AUTHORIZATION {elt.name}")
    kept = "SELECT kept_as IS NOT NULL FROM elt.changes WHERE relation = 'silver.c' ORDER BY run_id"
    for day in ("monday", "tuesday"):
        project.put_day(day)
        assert project.run("c").exit_code == 0
        statement = f"CREATE SCHEMA elt_changes AUTHORIZATION {elt.name};"
        assert statement in " ".join(project.output.split())
    project.database.sql(statement)
    project.put_day("wednesday")
    assert project.run("c").exit_code == 0 and "elt_changes" not in project.output
    assert project.database.sql(kept) == [(False,), (False,), (True,)]
    # where an administrator owns the schema and gave no right, the statement is another one
    project.database.sql(
        f"ALTER SCHEMA elt_changes OWNER TO CURRENT_USER; REVOKE ALL ON SCHEMA elt_changes FROM {elt.name}"
    )
    project.put_day("thursday")
    assert project.run("c").exit_code == 0
    statement = f"GRANT USAGE, CREATE ON SCHEMA elt_changes TO {elt.name}; GRANT USAGE ON SCHEMA elt_changes TO PUBLIC;"
    assert statement in " ".join(project.output.split())
    project.database.sql(statement)
    project.put_day("friday")
    assert project.run("c").exit_code == 0
    assert project.database.sql(kept)[3:] == [(False,), (True,)]


# ---- who may see it -------------------------------------------------------------------------------------------------

SECRETS = ("secret", "policy", "gone", "moved", "anew", "partly", "closed.t")


@pytest.fixture
def reader(runs: Runs, mallory: Role) -> Role:
    """A role that may read silver.open and silver.fewer, and has fewer rights on every other table of a run."""
    name = mallory.name
    runs.sql("CREATE SCHEMA closed")
    tables = ["silver.open", "silver.fewer", *(each if "." in each else f"silver.{each}" for each in SECRETS)]
    for each in tables:
        word = each.partition(".")[2] if each != "closed.t" else "closed.t"
        runs.sql(f"CREATE TABLE {each} (k int PRIMARY KEY, v text, salary text); INSERT INTO {each} VALUES (1, 'old')")
        with runs.run(), runs.script():
            runs.publish(each, f"(k, v, salary) AS VALUES (2, 'a word of {word}', 'salary in {word}')")
        runs.sql(f"GRANT SELECT ON {each} TO {name}")
    runs.sql(f"""
        GRANT USAGE ON SCHEMA elt, silver TO {name}; GRANT SELECT ON elt.row_changes, elt.changes TO {name};
        REVOKE ALL ON silver.secret FROM {name};
        ALTER TABLE silver.policy ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON silver.policy USING (k = 1);
        DROP TABLE silver.gone;
        ALTER TABLE silver.moved RENAME TO elsewhere;
        DROP TABLE silver.anew; CREATE TABLE silver.anew (k int PRIMARY KEY, v text, salary text);
        ALTER TABLE silver.anew OWNER TO {name};
        REVOKE ALL ON silver.partly FROM {name}; GRANT SELECT (k, v) ON silver.partly TO {name};
        ALTER TABLE silver.fewer DROP COLUMN salary;
    """)
    return mallory


ALL = "SELECT DISTINCT relation FROM elt.row_changes ORDER BY 1"


def test_a_reader_sees_the_changes_of_what_it_may_read_and_no_others(runs: Runs, reader: Role) -> None:
    assert reader.sql(ALL) == [("silver.fewer",), ("silver.open",)]
    assert reader.sql("SELECT operation, before, after FROM elt.row_changes WHERE relation = 'silver.fewer'"
                      " ORDER BY 1") == [
        ("deleted", {"k": 1, "v": "old"}, None),
        ("inserted", None, {"k": 2, "v": "a word of fewer"}),
    ]  # fmt: skip
    assert len(runs.sql(ALL)) == len(SECRETS) + 2 - 4, "no superuser sees a dropped, renamed, new or policed table"
    with runs.connection, runs.connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {reader.name}; {ALL}")
        assert cursor.fetchall() == [("silver.fewer",), ("silver.open",)]
        cursor.execute("RESET ROLE")
    runs.sql(f"ALTER TABLE silver.fewer RENAME COLUMN k TO number; REVOKE USAGE ON SCHEMA silver FROM {reader.name}")
    assert reader.sql(ALL) == []
    runs.sql(f"GRANT USAGE ON SCHEMA silver TO {reader.name}")
    assert reader.sql(ALL) == [("silver.open",)], "a key that has another name tells no rows apart"
    runs.sql("REVOKE USAGE ON SCHEMA elt_changes FROM PUBLIC")
    assert reader.sql(ALL) == []


def test_no_trick_shows_a_reader_more(runs: Runs, reader: Role) -> None:
    """Everything that the reader can get hold of is written to a table of its own."""
    runs.sql(f"CREATE SCHEMA loot AUTHORIZATION {reader.name}; GRANT USAGE ON SCHEMA loot TO PUBLIC")
    reader.sql("""
        CREATE TABLE loot.t (what text); GRANT INSERT ON loot.t TO PUBLIC;
        CREATE FUNCTION loot.leak(what anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
            'BEGIN INSERT INTO loot.t VALUES (what::text); RETURN true; END';
        CREATE FUNCTION loot.steal() RETURNS int LANGUAGE sql AS
            'INSERT INTO loot.t SELECT c::text FROM elt.row_changes AS c; SELECT 1';
        CREATE FUNCTION loot.take(row_count int) RETURNS int LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
            'BEGIN RETURN loot.steal(); END';
        CREATE TABLE loot.indexed (n int); CREATE INDEX ON loot.indexed (loot.take(n));
        CREATE MATERIALIZED VIEW loot.stored AS SELECT * FROM elt.row_changes;
    """)
    views = [view for (view,) in runs.sql("SELECT viewname FROM pg_views WHERE schemaname = 'elt_changes'")]
    kept = [name for (name,) in runs.sql("SELECT kept_as FROM elt.changes WHERE kept_as IS NOT NULL")]
    assert len(views) == len(kept) == len(SECRETS) + 2
    for each in ["elt.row_changes", *(f"elt_changes.{view}" for view in views)]:
        reader.sql(f"SELECT count(*) FROM {each} AS c WHERE loot.leak(c)")
    for name in kept:
        with pytest.raises(errors.InsufficientPrivilege):
            reader.sql(f"TABLE elt_changes.{name}")
        reader.sql(f"INSERT INTO loot.t SELECT c::text FROM elt._read_changes('{name}', '{{k}}') AS c")
    # names that the reader's own temporary tables have
    fakes = ["CREATE TEMP TABLE pg_class AS SELECT * FROM pg_catalog.pg_class",
             "CREATE TEMP TABLE pg_namespace AS SELECT * FROM pg_catalog.pg_namespace",
             "CREATE TEMP TABLE pg_attribute AS SELECT attrelid, attname, attisdropped FROM pg_catalog.pg_attribute",
             "UPDATE pg_temp.pg_class SET relrowsecurity = false",
             "UPDATE pg_temp.pg_class SET relname = 'moved' WHERE relname = 'elsewhere'",
             "UPDATE pg_temp.pg_class SET relnamespace = 'pg_catalog'::regnamespace"
             " WHERE relnamespace = 'closed'::regnamespace",
             "UPDATE pg_temp.pg_namespace SET nspname = 'closed' WHERE nspname = 'pg_catalog'"]  # fmt: skip
    reads = [f"SELECT count(*) FROM elt_changes.{view} AS c WHERE loot.leak(c)" for view in views]
    reader.sql("; ".join([*fakes, *reads]))
    # a superuser's maintenance, and one who calls a function that promises to run as the reader
    runs.sql("INSERT INTO loot.indexed VALUES (1); ANALYZE loot.indexed; REINDEX TABLE loot.indexed")
    runs.sql(
        "REFRESH MATERIALIZED VIEW loot.stored; SELECT loot.take(1);"
        " INSERT INTO loot.t SELECT s::text FROM loot.stored AS s"
    )
    looted = "\n".join(what for (what,) in runs.sql("SELECT what FROM loot.t"))
    assert "a word of open" in looted
    assert [secret for secret in SECRETS if f"a word of {secret}" in looted] == []
    assert "salary in fewer" not in looted
    assert runs.sql("SELECT DISTINCT reloptions FROM pg_class WHERE relkind = 'v' AND"
                    " (relname = 'row_changes' OR relnamespace = 'elt_changes'::regnamespace)"
                    ) == [(["security_barrier=true"],)]  # fmt: skip


def test_default_privileges_give_nobody_the_kept_rows(runs: Runs, mallory: Role) -> None:
    runs.sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {mallory.name}, PUBLIC")
    with runs.run(), runs.script():
        runs.publish("silver.t", "(k, v) AS VALUES (1, 'x')")
    runs.sql(f"REVOKE ALL ON silver.t FROM {mallory.name}, PUBLIC")
    with pytest.raises(errors.InsufficientPrivilege):
        mallory.sql(f"TABLE {runs.kept('silver.t')}")
    assert mallory.sql(f"TABLE {runs.kept('silver.t')}_rows") == []
    with pytest.raises(errors.InsufficientPrivilege):
        mallory.sql(f"DELETE FROM {runs.kept('silver.t')}_rows")


def test_only_the_rows_that_a_reader_asks_for_are_read(runs: Runs) -> None:
    for value in "xyz":
        with runs.run(), runs.script():
            runs.publish("silver.t", f"(k, v) AS VALUES (1, '{value}')")
    plan = runs.sql("EXPLAIN (ANALYZE, TIMING off, COSTS off, SUMMARY off) SELECT * FROM elt.row_changes"
                    " WHERE run_id = 2 AND relation = 'silver.t'")  # fmt: skip
    (calls,) = [line for (line,) in plan if "_read_changes" in line]
    assert "loops=1)" in calls, plan
