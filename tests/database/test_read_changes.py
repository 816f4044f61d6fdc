"""Reading what a run changed: which rows, in which order, for which role, and in the run's own transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from lib.postgres.connection import Connection
from lib.run.read_changes import (
    RowChange,
    TableChanges,
    last_published,
    one_run,
    read_changes,
    runs_since,
    unknown_table,
)
from tests.support.databases import sql
from tests.support.project import Project
from tests.support.roles import Role


@pytest.fixture
def looking(monday: Project) -> Iterator[Connection]:
    """A connection to a project in which run 2 has loaded tuesday: rows 1 to 10 of a, b and c have another v."""
    assert monday.run().exit_code == 0, monday.output
    connection = monday.database.connect()
    yield connection
    connection.close()


def named(changes: list[TableChanges]) -> dict[str, TableChanges]:
    return {each.relation: each for each in changes}


def test_each_table_has_its_counts_its_views_and_its_first_rows_by_key(looking: Connection) -> None:
    found = read_changes(looking, 2, limit=2)
    assert [each.relation for each in found] == [f"{layer}.{name}" for layer in ("bronze", "silver") for name in "abc"]
    assert [(each.inserted, each.updated, each.deleted) for each in found] == [(10, 0, 10)] * 3 + [(0, 10, 0)] * 3
    tables = named(found)
    assert [tables[f"silver.{name}"].views for name in "abc"] == [('gold."both"',), ('gold."both"',), ()]
    assert tables["silver.a"].rows == tuple(
        RowChange("updated", {"id": number}, {"id": number, "v": "monday"}, {"id": number, "v": "tuesday"})
        for number in (1, 2)
    )
    assert tables["bronze.a"].rows == (
        RowChange("deleted", None, {"id": "1", "v": "monday"}, None),
        RowChange("inserted", None, None, {"id": "1", "v": "tuesday"}),
    )
    assert read_changes(looking, 99) == []
    assert [each.rows for each in read_changes(looking, 2, limit=0)] == [()] * 6


def test_a_gold_view_stands_for_the_tables_that_it_reads(looking: Connection) -> None:
    sql(looking, "CREATE VIEW gold.above AS SELECT * FROM gold.both")
    assert [*named(read_changes(looking, 2, tables=["gold.above"]))] == ["silver.a", "silver.b"]
    assert [*named(read_changes(looking, 2, tables=["silver.c"]))] == ["silver.c"]
    assert read_changes(looking, 2, tables=["silver.c"], key="99") == []


def test_a_key_is_found_in_any_column_of_it_and_in_any_column_of_bronze(looking: Connection) -> None:
    found = read_changes(looking, 2, key="7")
    assert [(each.relation, each.inserted, each.updated, each.deleted, len(each.rows)) for each in found] == [
        *((f"bronze.{name}", 1, 0, 1, 2) for name in "abc"),
        *((f"silver.{name}", 0, 1, 0, 1) for name in "abc"),
    ]
    assert {(row.after or row.before or {})["id"] for each in found for row in each.rows} == {7, "7"}
    found, *_ = read_changes(looking, 2, key="monday")
    assert (found.relation, found.deleted, found.inserted) == ("bronze.a", 10, 0)


def test_rows_that_are_not_kept_are_told_apart(looking: Connection, monday: Project) -> None:
    first, *_ = read_changes(looking, 1, key="anything")
    assert (first.inserted, first.first_filling, first.is_kept, first.rows) == (10, True, False, ())
    monday.edit("silver/c.sql", "SELECT * FROM elt", "UPDATE silver.c SET v = v || '.';\nSELECT * FROM elt")
    monday.settings = replace(monday.settings, keep_changes=0)
    assert monday.run().exit_code == 0, monday.output
    (third,) = read_changes(looking, 3)
    assert (third.relation, third.by_other_statements, third.is_kept) == ("silver.c", 10, False)
    assert {each.is_kept for each in read_changes(looking, 2)} == {False}, "dropped after the third run"


def test_a_reader_sees_the_rows_of_tables_that_he_may_read_with_the_documented_grants(
    looking: Connection, monday: Project
) -> None:
    reader = Role(monday.database, "reader")
    sql(
        looking,
        f"GRANT USAGE ON SCHEMA elt, silver TO {reader.name};"
        f"GRANT SELECT ON elt.runs, elt.recent_runs, elt.changes, elt.row_changes, silver.a TO {reader.name};"
        f"SET ROLE {reader.name}",
    )
    found = named(read_changes(looking, 2))
    assert {name for name, each in found.items() if each.may_read and each.rows} == {"silver.a"}
    assert found["silver.b"].updated == 10 and found["silver.b"].views == ('gold."both"',)
    sought = named(read_changes(looking, 2, key="1"))
    assert (sought["silver.a"].updated, sought["silver.b"].updated, sought["silver.b"].may_read) == (1, 10, False)
    assert last_published(looking) == one_run(looking, 2)
    reader.drop()


def test_values_keep_their_digits_and_the_order_of_the_columns(monday: Project) -> None:
    monday.script(
        "silver/c.sql",
        "CREATE TABLE IF NOT EXISTS silver.c (zz numeric, b text, aaa bigint, PRIMARY KEY (b, aaa));"
        "DROP TABLE IF EXISTS pg_temp.n; CREATE TEMP TABLE n (b, aaa, zz) AS"
        " SELECT 'x', 9007199254740993 - id::bigint, (v || '.' || repeat('0', 30) || '1')::numeric FROM bronze.c;"
        "SELECT * FROM elt.publish_rows('silver.c', 'n')",
    )
    monday.database.sql("DROP TABLE silver.c")
    for v in ("1", "2" * 5_000):
        monday.put("c", [(str(number), v) for number in range(1, 11)])
        assert monday.run("c").exit_code == 0, monday.output
    connection = monday.database.connect()
    (found,) = read_changes(connection, 3, tables=["silver.c"], limit=1)
    (row,) = found.rows
    assert [*(row.key or {}).items()] == [("b", "x"), ("aaa", 9007199254740983)], "ordered as numbers"
    assert [*(row.before or {}).items()] == [
        ("zz", Decimal("1." + "0" * 30 + "1")), ("b", "x"), ("aaa", 9007199254740983),
    ]  # fmt: skip
    assert (row.after or {})["zz"] == Decimal("2" * 5_000 + "." + "0" * 30 + "1")
    connection.close()


def test_runs_are_found_by_number_by_day_and_as_the_last_that_published(monday: Project) -> None:
    connection = monday.database.connect()
    monday.put_day("tuesday")
    assert monday.run(run_date=date(2100, 1, 1)).exit_code == 0
    monday.put_day("a past day")
    assert monday.run(run_date=date(2099, 1, 1)).exit_code == 0
    monday.keboola.delete_table("in.c-main.a")
    monday.keboola.delete_table("in.c-main.c")
    assert monday.run().exit_code == 1
    assert [run.run_id for run in runs_since(connection, date(2100, 1, 1))] == [3, 2]
    assert [run.run_id for run in runs_since(connection, date(2020, 1, 1))] == [3, 2, 1]
    last, *_ = runs_since(connection, date(2100, 1, 1))
    assert last_published(connection) == one_run(connection, 3) == last
    assert last and (last.status, last.run_date) == ("done", date(2099, 1, 1))
    assert abs((datetime.now(UTC) - last.started_at).total_seconds()) < 600
    assert one_run(connection, 99) is None and runs_since(connection, date(2200, 1, 1)) == []
    connection.close()


def test_a_name_that_is_no_table_is_said_with_the_nearest(looking: Connection) -> None:
    assert unknown_table(looking, "silver.a") == unknown_table(looking, "gold.both") == ""
    assert unknown_table(looking, "both") == "there is no table 'both'; did you mean 'gold.both'?"
    sql(looking, "DROP TABLE silver.c")
    assert unknown_table(looking, "silver.c") == "", "runs changed it"


def test_it_is_read_inside_the_transaction_of_the_run(monday: Project) -> None:
    connection = monday.database.connect()
    sql(
        connection,
        "BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL elt.run_id = '7'; SET LOCAL elt.keep_changes = 'on'",
    )
    sql(
        connection,
        "CREATE TEMP TABLE n AS SELECT id, CASE id WHEN 3 THEN '' ELSE v END AS v FROM silver.a WHERE id <> 5",
    )
    sql(connection, "SELECT elt.publish_rows('silver.a', 'pg_temp.n')")
    (found,) = read_changes(connection, 7)
    assert [(row.operation, row.key, (row.after or {}).get("v")) for row in found.rows] == [
        ("updated", {"id": 3}, ""), ("deleted", {"id": 5}, None),
    ]  # fmt: skip
    sql(connection, "ROLLBACK")
    assert read_changes(connection, 7) == []
    connection.close()
