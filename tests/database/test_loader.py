"""Staging and bronze: columns matched by name, guards at their limits, tables of any kind."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from lib.config.jobs import Extract, Load
from lib.config.settings import Settings
from lib.errors import ExtractError, LoadError
from lib.extract import Slice, SourceTable
from lib.load.bronze import Loaded, publish_bronze
from lib.load.contract import Contract, match, read_contract
from lib.load.guards import Accepted
from lib.load.staging_table import Staging, copy_slice, create_staging, drop_staging, sweep_staging
from lib.postgres.connection import Database, execute
from lib.postgres.maintenance import vacuum
from lib.postgres.transaction import TransactionSettings, transaction
from tests.support.databases import EmptyDatabase, sql

NOTHING_ACCEPTED = Accepted()
EVERYTHING = Accepted(frozenset({("t", "shrink"), ("t", "empty"), ("t", "growth")}))


def source(*columns: str) -> SourceTable:
    """A typed Keboola table with these columns."""
    return SourceTable("in.c-main.t", columns, None, True, "version")


def slice_of(data: bytes, number: int = 1) -> Slice:
    return Slice(number, f"t_{number}.csv.gz", lambda: io.BytesIO(data))


LOAD = Load("t", Extract("keboola_table", "in.c-main.t"), "bronze.t")


class Workbench:
    """A database with bronze.t (id, v), and ways to load it."""

    def __init__(self, database: EmptyDatabase) -> None:
        opened = Database(Settings(root=database.server.folder), keywords=database.connect_args)
        self.connection = opened.connect("loader")
        self.connect = lambda: opened.connect("another")
        self.sql("CREATE SCHEMA elt_staging; CREATE SCHEMA bronze; CREATE TABLE bronze.t (id text, v text)")

    def sql(self, text: str) -> None:
        sql(self.connection, text)

    def rows(self, text: str = "SELECT * FROM bronze.t ORDER BY id") -> list[tuple]:
        return sql(self.connection, text)

    def contract(self) -> Contract:
        return read_contract(self.connection, LOAD)

    def stage(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Staging:
        """A staging table with these rows, in the columns that bronze.t has."""
        found = match(self.contract(), source(*columns)).found
        staging = create_staging(self.connection, "r1_t", self.contract(), found, source(*columns))
        places = [list(columns).index(column) for column in found.values()]
        text = io.StringIO(newline="")
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([row[place] for place in places] for row in rows)
        assert copy_slice(self.connection, staging, slice_of(text.getvalue().encode()), "in.c-main.t").rows == len(rows)
        return staging

    def load(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, accepted: Accepted = NOTHING_ACCEPTED, **guards
    ) -> Loaded:
        """Load these rows into bronze.t in a transaction of their own."""
        contract = self.contract()
        staging = self.stage(columns, rows)
        with transaction(self.connection, TransactionSettings(2)):
            return publish_bronze(self.connection, replace(LOAD, **guards), contract, staging, len(rows), accepted)

    def fill(self, count: int) -> None:
        """Fill bronze.t with this number of rows."""
        self.sql(f"DELETE FROM bronze.t; INSERT INTO bronze.t SELECT n, 'old' FROM generate_series(1, {count}) AS n")


@pytest.fixture
def bench(database: EmptyDatabase) -> Iterator[Workbench]:
    bench = Workbench(database)
    yield bench
    bench.connection.close()


def new(count: int) -> list[tuple[str, str]]:
    return [(str(number), "new") for number in range(1, count + 1)]


# ---- columns --------------------------------------------------------------------------------------------------------


def test_columns_are_matched_by_name_in_any_order(bench: Workbench) -> None:
    assert bench.load(["V", "Id"], [("new", "1")]) == Loaded(1, 0)
    assert bench.rows() == [("1", "new")]


def test_staging_has_the_columns_of_bronze_in_its_order_and_no_others(bench: Workbench) -> None:
    columns = (
        "SELECT attname FROM pg_attribute WHERE attrelid = 'elt_staging.r1_t'::regclass AND attnum > 0 ORDER BY attnum"
    )
    staging = bench.stage(["New", "V", "Id"], [("x", "new", "1")])
    assert staging.columns == ("v", "id")
    assert bench.rows(columns) == [("id",), ("v",)]
    assert bench.rows("SELECT * FROM elt_staging.r1_t") == [("1", "new")]


def test_names_that_need_quotes_land_where_they_belong(bench: Workbench) -> None:
    bench.sql('DROP TABLE bronze.t; CREATE TABLE bronze.t ("order" text, "2nd" text, "select" text, "_" text)')
    bench.load(["select", "_", "Order", "2nd"], [("s", "_", "o", "2")])
    assert bench.rows('SELECT "order", "2nd", "select", "_" FROM bronze.t') == [("o", "2", "s", "_")]


def test_a_column_that_the_source_lacks_is_null(bench: Workbench) -> None:
    bench.fill(1)
    bench.load(["id"], [("1",)])
    assert bench.rows() == [("1", None)]


def test_a_column_that_must_not_be_null_fails_where_the_source_lacks_it(bench: Workbench) -> None:
    bench.sql("ALTER TABLE bronze.t ALTER v SET NOT NULL")
    with pytest.raises(LoadError, match='^cannot load bronze.t: null value in column "v"'):
        bench.load(["id"], [("1",)])


def test_columns_that_fill_themselves_are_not_loaded_even_where_the_source_has_them(bench: Workbench) -> None:
    bench.sql("""
        ALTER TABLE bronze.t ADD loaded_by text DEFAULT 'us', ADD number int GENERATED ALWAYS AS IDENTITY,
            ADD longer text GENERATED ALWAYS AS (id || v) STORED
    """)
    bench.load(["id", "v", "loaded_by", "number", "longer"], [("1", "new", "them", "7", "x")])
    assert bench.rows() == [("1", "new", "us", 1, "1new")]


@pytest.mark.parametrize("change", ["DROP v", "ADD w text", "ALTER v SET DEFAULT 'x'", "RENAME v TO w"])
def test_a_table_whose_columns_changed_since_its_rows_were_exported_is_not_loaded(
    bench: Workbench, change: str
) -> None:
    bench.fill(1)
    contract, staging = bench.contract(), bench.stage(["id", "v"], new(1))
    bench.sql(f"ALTER TABLE bronze.t {change}")
    with pytest.raises(LoadError, match="^bronze.t: its columns were changed during the export"):
        publish_bronze(bench.connection, LOAD, contract, staging, 1, Accepted())
    assert bench.rows("SELECT count(*) FROM bronze.t") == [(1,)]


def test_a_bronze_column_that_is_no_text_is_an_error_by_name(bench: Workbench) -> None:
    bench.sql("ALTER TABLE bronze.t ALTER v TYPE integer USING NULL")
    with pytest.raises(LoadError, match='^cannot load bronze.t: column "v" is of type integer but expression is of'):
        bench.load(["id", "v"], [("1", "2")])


def test_fifteen_hundred_columns_are_loaded(bench: Workbench) -> None:
    names = [f"column_{number}" for number in range(1500)]
    columns = ", ".join(f"{name} text" for name in names)
    bench.sql(f"DROP TABLE bronze.t; CREATE TABLE bronze.t ({columns})")
    rows = [[str(number % 7) for number in range(row, row + 1500)] for row in range(20)]
    assert bench.load(names[::-1], rows).rows == 20
    assert bench.rows("SELECT column_0, column_1499 FROM bronze.t ORDER BY ctid LIMIT 1") == [("1", "0")]


def test_a_row_that_is_too_wide_for_postgresql_stops_by_slice_and_line(bench: Workbench) -> None:
    names = [f"column_{number}" for number in range(1500)]
    bench.sql("DROP TABLE bronze.t; CREATE TABLE bronze.t (" + ", ".join(f"{name} text" for name in names) + ")")
    with pytest.raises(LoadError, match=r"^in.c-main.t: slice 1 \(t_1.csv.gz\), line \d: row is too big: size \d+"):
        bench.stage(names, [["1"] * 1500, ["x" * 20] * 1500])


# ---- guards ---------------------------------------------------------------------------------------------------------


#: rows before, rows now, guards, and the message
LIMITS: list[tuple[int, int, dict[str, float], str]] = [
    (0, 1, {}, ""),
    (0, 0, {}, "has 0 rows, min_rows is 1\n    The 0 rows loaded before stay."),
    (10, 0, {}, "has 0 rows, min_rows is 1\n    The 10 rows loaded before stay."),
    (0, 0, {"min_rows": 0}, ""),
    (0, 3, {"min_rows": 3}, ""),
    (0, 2, {"min_rows": 3}, "has 2 rows, min_rows is 3"),
    (10, 5, {}, ""),
    (10, 4, {}, "has 4 rows, 10 were loaded before: 60 % fewer, max_shrink_percent is 50"),
    (11, 5, {}, "55 % fewer"),
    (11, 6, {}, ""),
    (10, 3, {"max_shrink_percent": 70}, ""),
    (10, 2, {"max_shrink_percent": 70}, "80 % fewer, max_shrink_percent is 70"),
    (1000, 667, {"max_shrink_percent": 33.3}, ""),
    (1000, 666, {"max_shrink_percent": 33.3}, "33 % fewer, max_shrink_percent is 33.3"),
    (10, 9, {"max_shrink_percent": 0}, "10 % fewer, max_shrink_percent is 0"),
    (10, 10, {"max_shrink_percent": 0}, ""),
    (10, 100, {"max_shrink_percent": 0}, ""),
    (10, 1, {"max_shrink_percent": 100}, ""),
    (10, 0, {"max_shrink_percent": 100, "min_rows": 0}, ""),
    (10, 0, {"min_rows": 0}, "100 % fewer"),
    (10, 20, {"max_growth_percent": 100}, ""),
    (10, 21, {"max_growth_percent": 100}, "110 % more, max_growth_percent is 100"),
    (10, 11, {"max_growth_percent": 0}, "10 % more, max_growth_percent is 0"),
    (0, 100, {"max_growth_percent": 0}, ""),
    (0, 0, {"max_growth_percent": 0, "min_rows": 0}, ""),
]


def test_a_guard_speaks_up_beyond_its_limit_and_not_at_it(bench: Workbench) -> None:
    for before, now, guards, refused in LIMITS:
        bench.fill(before)
        if refused:
            with pytest.raises(LoadError) as caught:
                bench.load(["id", "v"], new(now), **guards)
            message = str(caught.value)
            assert message.startswith("bronze.t: the export has ") and refused in message, message
            guard = "empty" if "min_rows" in refused else "growth" if "more" in refused else "shrink"
            assert message.endswith(f"accept it once: python main.py run --accept t:{guard}"), message
            assert bench.rows("SELECT count(*) FROM bronze.t WHERE v = 'old'") == [(before,)]
        accepted = bench.load(["id", "v"], new(now), accepted=EVERYTHING if refused else Accepted(), **guards)
        assert accepted == Loaded(now, before)
        assert bool(accepted.warning) == (now > 2 * before > 0 and "max_growth_percent" not in guards)
        assert len(bench.rows()) == now


# ---- tables of other kinds ------------------------------------------------------------------------------------------


def test_a_missing_table_names_the_script_that_should_make_it(bench: Workbench) -> None:
    bench.sql("DROP TABLE bronze.t")
    with pytest.raises(LoadError, match="^bronze.t does not exist: create it in sql_scripts/bronze/t.sql"):
        bench.load(["id", "v"], new(1))


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_view_is_not_loaded_even_where_it_could_be(bench: Workbench, kind: str) -> None:
    bench.fill(2)
    bench.sql(f"ALTER TABLE bronze.t RENAME TO real; CREATE {kind} bronze.t AS SELECT * FROM bronze.real")
    with pytest.raises(LoadError, match="^bronze.t is not a table"):
        bench.load(["id", "v"], new(2))
    assert bench.rows("SELECT DISTINCT v FROM bronze.real") == [("old",)]


def test_a_partitioned_table_is_loaded_like_any_other(bench: Workbench) -> None:
    bench.sql("""
        DROP TABLE bronze.t; CREATE TABLE bronze.t (id text, v text) PARTITION BY LIST (id);
        CREATE TABLE bronze.t_1 PARTITION OF bronze.t FOR VALUES IN ('1');
        CREATE TABLE bronze.t_others PARTITION OF bronze.t DEFAULT
    """)
    bench.fill(4)
    assert bench.load(["id", "v"], new(3)) == Loaded(3, 4)
    assert bench.rows() == [("1", "new"), ("2", "new"), ("3", "new")]


def test_a_trigger_that_drops_rows_is_found_out(bench: Workbench) -> None:
    bench.fill(3)
    bench.sql("""
        CREATE FUNCTION bronze.drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER drops BEFORE INSERT ON bronze.t FOR EACH ROW WHEN (new.id = '2')
            EXECUTE FUNCTION bronze.drop_it()
    """)
    with pytest.raises(LoadError, match="^bronze.t: 3 rows were staged, 2 arrived; .* or a trigger drops rows"):
        bench.load(["id", "v"], new(3))
    assert bench.rows("SELECT DISTINCT v FROM bronze.t") == [("old",)]


@pytest.mark.parametrize(
    "keep",
    [
        "CREATE TRIGGER keeps BEFORE DELETE ON bronze.t FOR EACH ROW EXECUTE FUNCTION bronze.drop_it()",
        "CREATE RULE keeps AS ON DELETE TO bronze.t DO INSTEAD NOTHING",
        "CREATE TABLE bronze.u () INHERITS (bronze.t);"
        " WITH moved AS (DELETE FROM ONLY bronze.t WHERE id = '3' RETURNING *) INSERT INTO bronze.u SELECT *"
        " FROM moved;"
        " CREATE TRIGGER keeps BEFORE DELETE ON bronze.u FOR EACH ROW EXECUTE FUNCTION bronze.drop_it()",
    ],
)
def test_a_trigger_or_rule_that_keeps_rows_never_doubles_them(bench: Workbench, keep: str) -> None:
    bench.fill(3)
    bench.sql("CREATE FUNCTION bronze.drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    bench.sql(keep)
    with pytest.raises(LoadError, match="^bronze.t: a trigger or rule prevents DELETE of its rows"):
        bench.load(["id", "v"], new(3))
    assert len(bench.rows()) == 3


def test_a_staging_table_that_lost_its_rows_is_found_out(bench: Workbench) -> None:
    bench.fill(3)
    staging = bench.stage(["id", "v"], new(3))
    bench.sql("TRUNCATE elt_staging.r1_t")  # a restart after a crash empties an unlogged table
    with (
        pytest.raises(LoadError, match="^bronze.t: 3 rows were staged, 0 arrived; the server was restarted"),
        transaction(bench.connection, TransactionSettings(2)),
    ):
        publish_bronze(bench.connection, LOAD, bench.contract(), staging, 3, Accepted())
    assert len(bench.rows()) == 3


# ---- staging --------------------------------------------------------------------------------------------------------


def test_a_slice_that_cannot_be_read_to_its_end_leaves_no_row(bench: Workbench) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise ExtractError("slice 1: the connection was cut")
            return data

    staging = create_staging(bench.connection, "r1_t", bench.contract(), ("id", "v"), source("id", "v"))
    with pytest.raises(ExtractError, match="^slice 1: the connection was cut$"):
        copy_slice(bench.connection, staging, Slice(1, "t", lambda: Cut(b"1,2\n")), "in.c-main.t")
    assert bench.rows("SELECT count(*) FROM elt_staging.r1_t") == [(0,)]
    assert copy_slice(bench.connection, staging, slice_of(b"1,2\n"), "in.c-main.t").rows == 1


def test_staging_is_made_anew_for_another_try(bench: Workbench) -> None:
    bench.stage(["id", "v"], new(3))
    bench.stage(["id"], [("1",)])
    assert bench.rows("SELECT * FROM elt_staging.r1_t") == [("1",)]


def test_staging_that_a_copy_still_holds_is_left_to_the_next_sweep(bench: Workbench) -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            reached.set()
            go_on.wait()
            return super().read(size)

    bench.sql("CREATE TABLE elt_staging.r0_litter (v text)")
    staging = create_staging(bench.connection, "r1_t", bench.contract(), ("id", "v"), source("id", "v"))
    connection = bench.connect()
    arguments = (connection, staging, Slice(1, "t", lambda: Slow(b"1,2\n")), "in.c-main.t")
    copying = threading.Thread(target=copy_slice, args=arguments)
    copying.start()
    left = "SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'"
    try:
        assert reached.wait(10)
        drop_staging(bench.connection, "r1_t", seconds=0.05)
        drop_staging(bench.connection, "r0_litter", seconds=0.05)
        assert bench.rows(left) == [("r1_t",)]
    finally:
        go_on.set()
        copying.join()
        connection.close()
    sweep_staging(bench.connection)
    assert bench.rows(left) == []
    assert bench.rows("SHOW lock_timeout") == [("5s",)]


def test_a_sweep_takes_whatever_is_left_whatever_its_name(bench: Workbench) -> None:
    bench.sql('CREATE TABLE elt_staging."R 7; drop" (v text); CREATE UNLOGGED TABLE elt_staging.r17_products (v text)')
    sweep_staging(bench.connection)
    assert bench.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'elt_staging'") == []


# ---- vacuum ---------------------------------------------------------------------------------------------------------


def test_a_vacuum_says_nothing_unless_postgresql_warns(bench: Workbench) -> None:
    bench.fill(10)
    assert vacuum(bench.connection, ["bronze.t"]) == []
    assert bench.rows("SELECT relallvisible > 0 FROM pg_class WHERE oid = 'bronze.t'::regclass") == [(True,)]


def test_a_vacuum_waits_for_nobody_and_says_what_it_skipped(bench: Workbench) -> None:
    bench.sql('CREATE TABLE bronze."other t" (v text)')
    bench.sql("SET lock_timeout = '1s'")  # waiting for a lock is an error
    colleague = bench.connect()
    with transaction(colleague, TransactionSettings(2)):
        execute(colleague, "LOCK TABLE bronze.t IN SHARE UPDATE EXCLUSIVE MODE")
        said = vacuum(bench.connection, ["bronze.t", 'bronze."other t"'])
    colleague.close()
    assert said == ['WARNING:  skipping vacuum of "t" --- lock not available']
    assert vacuum(bench.connection, ["bronze.t"]) == []


def test_a_load_renews_statistics_at_once_only_where_the_number_of_rows_changed_much(bench: Workbench) -> None:
    bench.sql("ALTER TABLE bronze.t SET (autovacuum_enabled = off)")
    distinct = "SELECT n_distinct FROM pg_stats WHERE schemaname = 'bronze' AND attname = 'v'"
    bench.load(["id", "v"], [[f"{n}", "a"] for n in range(100)])
    assert bench.rows(distinct) == [(1,)]
    bench.load(["id", "v"], [[f"{n}", "ab"[n % 2]] for n in range(110)])
    assert bench.rows(distinct) == [(1,)]
    bench.load(["id", "v"], [[f"{n}", "ab"[n % 2]] for n in range(98)])
    assert bench.rows(distinct) == [(2,)]
    bench.sql("DELETE FROM pg_statistic WHERE starelid = 'bronze.t'::regclass")
    bench.load(["id", "v"], [[f"{n}", "abc"[n % 3]] for n in range(98)])
    assert bench.rows(distinct) == [(3,)]


def test_a_vacuum_of_somebody_elses_table_is_reported(bench: Workbench) -> None:
    bench.sql("DROP ROLE IF EXISTS guest; CREATE ROLE guest; GRANT USAGE ON SCHEMA bronze TO guest; SET ROLE guest")
    said = vacuum(bench.connection, ["bronze.t"])
    bench.sql("RESET ROLE; DROP OWNED BY guest; DROP ROLE guest")
    assert len(said) == 1 and re.search("^WARNING:  .*vacuum", said[0]) and '"t"' in said[0]
