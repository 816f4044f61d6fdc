"""Bronze by difference: whatever bronze and the export hold, afterwards bronze equals the export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config.jobs import Extract, Load
from lib.config.settings import Settings
from lib.extract import SourceTable
from lib.load.bronze import Loaded, publish_bronze
from lib.load.contract import Contract, match, read_contract
from lib.load.difference import HALVES, Difference, prepare_comparison, was_edited
from lib.load.guards import Accepted
from lib.load.staging_table import create_staging
from lib.postgres.connection import Database, execute, query
from lib.postgres.transaction import TransactionSettings, transaction
from tests.support.databases import EmptyDatabase

Row = tuple[str | None, ...]
EVERYTHING = Accepted(frozenset({("t", "shrink"), ("t", "empty"), ("t", "growth"), ("t", "missing")}))
LOAD = Load("t", Extract("keboola_table", "in.c-main.t"), "bronze.t")


class Bench:
    """bronze.t (a, b, "order"), and loads of it as a run does them: staged, compared, published."""

    def __init__(self, database: EmptyDatabase) -> None:
        opened = Database(Settings(root=database.server.folder), keywords=database.connect_args)
        self.connection, self.second = opened.connect("loader"), opened.connect("second")
        self.colleague = opened.connect("colleague")
        self.sql("CREATE SCHEMA elt_staging; CREATE SCHEMA bronze")
        self.create('CREATE TABLE bronze.t (a text, b text, "order" text)')

    def create(self, statement: str) -> None:
        self.sql(f"DROP TABLE IF EXISTS bronze.t; {statement}")

    def sql(self, text: str) -> None:
        execute(self.colleague, text)

    def rows(self, columns: str = 'a, b, "order"') -> list[Row]:
        return query(self.colleague, f"SELECT {columns} FROM bronze.t")

    def compare(
        self,
        rows: Sequence[Row],
        columns: Sequence[str] = ("a", "b", "order"),
        load: Load = LOAD,
        contract: Contract | None = None,
    ):
        """Stage these rows and compare them. Returns what publish_bronze needs."""
        contract = contract or read_contract(self.connection, load)
        source = SourceTable("in.c-main.t", tuple(columns), None, True, "version")
        found = match(contract, source).found
        staging = create_staging(self.connection, "r1_t", contract, found, source)
        names = ", ".join(f'"{name}"' for name in found)
        values = ", ".join(["%s"] * len(found))
        with self.connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {staging.identifier.as_string(cursor)} ({names}) VALUES ({values})", rows)
        comparison = prepare_comparison(self.connection, load, contract, staging)
        difference = None
        if comparison:
            # one half on each connection, as in a run
            halves = [
                comparison.compare(connection, half)
                for half, connection in zip(HALVES, (self.connection, self.second), strict=True)
            ]
            difference = Difference(comparison, tuple(halves))
        return load, contract, staging, len(rows), EVERYTHING, difference

    def publish(self, compared) -> Loaded:
        with transaction(self.connection, TransactionSettings(2)):
            execute(self.connection, "LOCK TABLE bronze.t IN SHARE ROW EXCLUSIVE MODE")
            return publish_bronze(self.connection, *compared)

    def close(self) -> None:
        for connection in (self.connection, self.second, self.colleague):
            connection.close()

    def load(self, rows: Sequence[Row], **options) -> Loaded:
        return self.publish(self.compare(rows, **options))


@pytest.fixture
def bench(database: EmptyDatabase) -> Iterator[Bench]:
    bench = Bench(database)
    yield bench
    bench.close()


@pytest.fixture
def bench_on_each(database_on_each: EmptyDatabase) -> Iterator[Bench]:
    bench = Bench(database_on_each)
    yield bench
    bench.close()


def written(loaded: Loaded) -> tuple[int, int, bool]:
    """Rows deleted, rows inserted, and whether only what differs was written."""
    return loaded.deleted, loaded.inserted, loaded.difference is not None


# ---- what is written ------------------------------------------------------------------------------------------------


def numbered(count: int, **changed: str) -> list[Row]:
    return [(str(n), changed.get(f"row_{n}", "same"), None) for n in range(count)]


def test_only_rows_that_differ_are_written(bench: Bench) -> None:
    assert written(bench.load(numbered(10))) == (0, 10, False)
    before = dict(query(bench.colleague, "SELECT a, xmin::text FROM bronze.t"))
    assert written(bench.load(numbered(11, row_3="new"))) == (1, 2, True)
    after = dict(query(bench.colleague, "SELECT a, xmin::text FROM bronze.t"))
    assert {a for a in after if before.get(a) != after[a]} == {"3", "10"}
    assert written(bench.load(numbered(11, row_3="new"))) == (0, 0, True)


def test_of_equal_rows_exactly_as_many_go_or_come_as_differ(bench: Bench) -> None:
    bench.load([("x", "y", None)] * 5 + [("z", "", None)])
    assert written(bench.load([("x", "y", None)] * 2 + [("z", "", None)] * 3)) == (3, 2, True)
    assert Counter(bench.rows()) == Counter({("x", "y", None): 2, ("z", "", None): 3})


def test_null_and_an_empty_text_are_not_the_same(bench: Bench) -> None:
    bench.load([(None, "", "x"), ("", None, "x")])
    assert written(bench.load([("", "", "x"), ("", None, "x")])) == (1, 1, True)


def test_columns_that_fill_themselves_keep_their_values_in_rows_that_stay(bench: Bench) -> None:
    bench.create("""
        CREATE TABLE bronze.t (
            number int GENERATED ALWAYS AS IDENTITY, a text, loaded_at timestamptz DEFAULT clock_timestamp(), b text,
            "order" text
        )
    """)
    bench.load(numbered(3))
    before = bench.rows("a, number, loaded_at")
    bench.load(numbered(3, row_1="new"))
    after = bench.rows("a, number, loaded_at")
    assert len({*before} & {*after}) == 2
    assert {row[1] for row in after} == {1, 3, 4}


def test_another_order_of_columns_in_the_source_is_no_difference(bench: Bench) -> None:
    bench.load([("1", "x", "y")])
    assert written(bench.load([("y", "1", "x")], columns=("order", "a", "b"))) == (0, 0, True)


def test_a_column_that_the_source_lost_becomes_null_in_each_row(bench: Bench) -> None:
    bench.load([("1", "x", "y"), ("2", None, "y")])
    assert written(bench.load([("1", "y"), ("2", "y")], columns=("a", "order"))) == (1, 1, True)
    assert sorted(bench.rows()) == [("1", None, "y"), ("2", None, "y")]


def test_a_large_table_of_which_most_rows_differ_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.load.difference.ALWAYS_BY_DIFFERENCE", 3)
    bench.load(numbered(4))
    assert written(bench.load(numbered(4, row_0="new"))) == (1, 1, True)
    assert written(bench.load(numbered(4, row_1="new", row_2="new"))) == (4, 4, False)


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ('CREATE TABLE bronze.t (a text, b varchar(9), "order" text)', [("1", "x", "y")]),
        ('CREATE TABLE bronze.t (a text, b text, "order" text, "elt count" text)', [("1", "x", "y")]),
    ],
)
def test_a_table_that_cannot_be_compared_is_replaced(bench: Bench, table: str, rows: list[Row]) -> None:
    bench.create(table)
    bench.load(rows)
    assert written(bench.load(rows)) == (1, 1, False)
    assert bench.rows() == rows


# ---- what was compared must still be there ---------------------------------------------------------------------------

EDITS = {
    "insert": "INSERT INTO bronze.t VALUES ('new', NULL, NULL)",
    "delete": "DELETE FROM bronze.t WHERE a = '1'",
    "update": "UPDATE bronze.t SET b = 'edited' WHERE a = '2'",
    "delete and insert": "DELETE FROM bronze.t WHERE a = '1'; INSERT INTO bronze.t VALUES ('1', 'edited', NULL)",
    "subtransaction": "BEGIN; SAVEPOINT s; UPDATE bronze.t SET b = 'edited' WHERE a = '2'; RELEASE s; COMMIT",
    "truncate": "BEGIN; CREATE TEMP TABLE k AS TABLE bronze.t; TRUNCATE bronze.t;"
    " INSERT INTO bronze.t TABLE k; COMMIT; DROP TABLE k",
    "vacuum full": "VACUUM FULL bronze.t",
    "new table": "ALTER TABLE bronze.t RENAME TO old; CREATE TABLE bronze.t (LIKE bronze.old);"
    " INSERT INTO bronze.t TABLE bronze.old",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_between_comparison_and_publish_never_survives(bench_on_each: Bench, edit: str) -> None:
    bench = bench_on_each
    bench.load(numbered(5))
    bench.sql("DELETE FROM bronze.t WHERE a = '0'; INSERT INTO bronze.t VALUES ('0', 'same', NULL)")  # another place
    compared = bench.compare(numbered(6, row_2="new", row_4="new"))
    bench.sql(edit)
    assert written(bench.publish(compared)) == (written_before(bench, edit), 6, False)
    assert Counter(bench.rows()) == Counter(numbered(6, row_2="new", row_4="new"))


def written_before(bench: Bench, edit: str) -> int:
    return 5 + (edit == EDITS["insert"]) - (edit == EDITS["delete"])


def test_an_edit_that_was_open_when_the_rows_were_compared_never_survives(bench: Bench) -> None:
    bench.load(numbered(5))
    bench.sql("BEGIN; SAVEPOINT s; UPDATE bronze.t SET b = 'edited' WHERE a = '2'")
    rows = numbered(5, row_4="new")
    compared = bench.compare(rows)
    bench.sql("COMMIT")
    loaded = bench.publish(compared)
    assert written(loaded) == (5, 5, False)
    assert Counter(bench.rows()) == Counter(rows)


ANEW = (
    "ALTER TABLE bronze.t {drop} ADD COLUMN {name} text DEFAULT 'made up';"
    " ALTER TABLE bronze.t ALTER {name} DROP DEFAULT"
)


def test_a_column_made_anew_with_a_default_before_the_publish_never_survives(bench: Bench) -> None:
    bench.load(numbered(5))
    compared = bench.compare(numbered(6))
    bench.sql(ANEW.format(drop='DROP COLUMN "order",', name='"order"'))
    assert written(bench.publish(compared)) == (5, 6, False)
    assert Counter(bench.rows()) == Counter(numbered(6))


@pytest.mark.parametrize("in_source", [True, False])
def test_a_new_column_that_its_script_fills_by_a_default_holds_what_the_source_holds(
    bench: Bench, in_source: bool
) -> None:
    bench.load(numbered(5))
    columns = ("a", "b", "order", *(["w"] if in_source else []))
    rows = [(*row, *(["w"] if in_source else [])) for row in numbered(6)]
    added = replace(LOAD, optional_columns=("w",))
    contract = replace(read_contract(bench.connection, LOAD), not_yet_made=frozenset({"w"}))
    contract = replace(contract, columns=(*contract.columns, "w"))
    compared = bench.compare(rows, columns, added, contract)
    bench.sql(ANEW.format(drop="", name="w"))
    assert written(bench.publish(compared))[:2] == (5, 6)
    assert Counter(bench.rows('a, b, "order", w')) == Counter((*row, "w" if in_source else None) for row in numbered(6))


@pytest.mark.parametrize(
    "code, drop",
    [
        (
            "CREATE TRIGGER up BEFORE INSERT ON bronze.part FOR EACH ROW EXECUTE FUNCTION public.up()",
            "TRIGGER up ON bronze.part",
        ),
        ("CREATE RULE more AS ON INSERT TO bronze.t DO ALSO UPDATE bronze.t SET b = upper(b)", "RULE more ON bronze.t"),
    ],
)
def test_what_rewrites_rows_is_named_wherever_it_is(bench: Bench, code: str, drop: str) -> None:
    bench.create('CREATE TABLE bronze.t (a text, b text, "order" text) PARTITION BY LIST (a)')
    bench.sql("CREATE TABLE bronze.part PARTITION OF bronze.t DEFAULT")
    bench.sql(
        "CREATE FUNCTION public.up() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.b := upper(NEW.b); RETURN NEW; END'"
    )
    bench.sql(code)
    loaded = bench.load([("1", "low", None)])
    assert "triggers change 1 rows" in loaded.warning and f"DROP {drop};" in loaded.warning


# ---- somebody else wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [edit for name, edit in EDITS.items() if "a =" in edit or name == "insert"])
def test_a_manual_change_is_noticed(bench: Bench, edit: str) -> None:
    left = bench.load(numbered(5)).left
    same = bench.load(numbered(5))
    assert same.found == left and not was_edited(left, same.found)
    bench.sql(edit)
    assert was_edited(same.left, bench.load(numbered(5)).found)
    assert was_edited(None, left) is was_edited(left, None) is False


def test_values_that_changed_places_are_noticed(bench: Bench) -> None:
    """A sum of plain row hashes would not see most of these."""
    rows: list[Row] = [(str(n), f"value {n}", "y") for n in range(16)]
    left = bench.load(rows).left
    for n in range(0, 16, 2):
        bench.sql(f"UPDATE bronze.t SET b = 'value ' || ({2 * n + 1} - a::int) WHERE a IN ('{n}', '{n + 1}')")
        assert was_edited(left, bench.load(rows).found)


def test_another_column_or_another_server_is_no_manual_change() -> None:
    assert not was_edited("17 abc 3 5", "18 abc 3 6")
    assert not was_edited("18 abc 3 5", "18 abd 3 6")
    assert was_edited("18 abc 3 5", "18 abc 3 6")


# ---- any rows -------------------------------------------------------------------------------------------------------

VALUES = st.sampled_from([None, "", "a", "A", "á", "'", '"', "\\", "\n", "a" * 3000, "0", "1"])
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8)
TABLES = [
    'CREATE TABLE bronze.t (a text, b text, "order" text)',
    'CREATE TABLE bronze.t ("order" text, b text, a text COLLATE "C", n int GENERATED ALWAYS AS IDENTITY)',
    """
    CREATE TABLE bronze.t (b text, a text, "order" text) PARTITION BY LIST (b);
    CREATE TABLE bronze.t_1 PARTITION OF bronze.t FOR VALUES IN ('a', '', NULL);
    CREATE TABLE bronze.t_2 ("order" text, b text, a text);
    ALTER TABLE bronze.t ATTACH PARTITION bronze.t_2 DEFAULT
    """,
]
BETWEEN = [
    "SELECT 1",
    "VACUUM FULL bronze.t",
    "VACUUM (FREEZE) bronze.t",
    "UPDATE bronze.t SET a = b",
    "DELETE FROM bronze.t WHERE a = 'a'",
    "INSERT INTO bronze.t (a) VALUES ('a')",
    "BEGIN; UPDATE bronze.t SET a = '1'; ROLLBACK",
    "ANALYZE bronze.t",
]


def any_rows(bench: Bench, days: list[tuple[list[Row], str, str]], table: str) -> None:
    bench.create(table)
    left = None
    for rows, before, between in days:
        bench.sql(before)
        compared = bench.compare(rows)
        bench.sql(between)
        loaded = bench.publish(compared)
        assert Counter(bench.rows()) == Counter(rows), (before, between)
        assert loaded.rows == len(rows)
        if loaded.found and before in BETWEEN[:3]:
            assert not was_edited(left, loaded.found)
        left = loaded.left


ANY_ROWS = given(
    st.lists(st.tuples(ROWS, st.sampled_from(BETWEEN), st.sampled_from(BETWEEN)), min_size=2, max_size=4),
    st.sampled_from(TABLES),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@ANY_ROWS
def test_bronze_equals_the_export_whatever_both_hold(bench_on_each: Bench, days, table: str) -> None:
    any_rows(bench_on_each, days, table)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@ANY_ROWS
def test_bronze_equals_the_export_whatever_both_hold_many_times(bench_on_each: Bench, days, table: str) -> None:
    any_rows(bench_on_each, days, table)
