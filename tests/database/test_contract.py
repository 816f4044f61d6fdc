"""The columns of the bronze table are a contract: which are exported, what happens if one is missing or new."""

from __future__ import annotations

import re

import pytest

from lib.extract import SourceTable
from lib.load.guards import Accepted
from lib.run.runner import LockRetry
from lib.stop import StopSignal
from sandbox.faults import Fault
from tests.support.databases import sql
from tests.support.project import Project

MISSING = Accepted(frozenset({("c", "missing")}))


def source(*columns: str) -> SourceTable:
    return SourceTable("in.c-main.t", columns, None, True, "version")


# ---- a column that is missing ---------------------------------------------------------------------------------------


@pytest.fixture
def monday(monday: Project) -> Project:
    """A project that was loaded on monday. On tuesday table c has column "value" instead of "v"."""
    monday.put("c", [(str(number), "tuesday") for number in range(1, 11)], columns=["id", "value"])
    return monday


def test_a_missing_column_holds_its_group_back_by_name_and_the_others_publish(monday: Project) -> None:
    assert monday.run().exit_code == 1
    assert monday.day("silver.c") == "monday" and monday.day("silver.a") == "tuesday"
    assert "c (in.c-main.c has no column 'v'; did you mean 'value'?" in monday.last_line
    for way_out in (
        "If it was renamed, rename it in sql_scripts/bronze/c.sql, in the scripts that read it, and in psql:"
        ' ALTER TABLE bronze.c RENAME COLUMN "v" TO "value";',
        'If it may be missing, add to "load" of job c in elt_jobs.json: "optional_columns": ["v"]',
        "To load without it once (each number calculated from it is 0 or unknown):"
        " python main.py run --accept c:missing",
    ):
        assert way_out in monday.output
    assert not [request for request in monday.keboola.requests if request.path.endswith("c/export-async")][1:]


def test_the_columns_that_came_are_told_although_the_group_fails(monday: Project) -> None:
    monday.run()
    assert "in.c-main.c has columns that bronze.c lacks; they are not loaded: 'value'" in monday.output
    assert "To load one" not in monday.output, "it is more likely the new name of the one that is missing"


def test_accepted_once_it_is_null_and_recorded_and_the_next_run_is_held_back_again(monday: Project) -> None:
    assert monday.run(accepted=MISSING).exit_code == 0
    assert monday.rows("silver.c")[0] == (1, None)
    assert "in.c-main.c has no column 'v': NULL in bronze.c, as accepted" in monday.output
    recorded = "SELECT accepted_guards FROM elt.job_runs WHERE run_id = 2 AND job IN ('a', 'c') ORDER BY job"
    assert monday.database.sql(recorded) == [([],), (["missing"],)]
    assert monday.run().exit_code == 1
    assert monday.rows("silver.c")[0] == (1, None)


def test_what_was_accepted_is_recorded_also_where_the_group_then_fails(monday: Project) -> None:
    monday.database.sql("ALTER TABLE bronze.c ALTER v SET NOT NULL")
    assert monday.run(accepted=MISSING).exit_code == 1
    recorded = "SELECT status, accepted_guards FROM elt.job_runs WHERE run_id = 2 AND job = 'c'"
    assert monday.database.sql(recorded) == [("failed", ["missing"])]


def test_a_run_of_one_job_names_the_column_that_another_of_its_group_lost(monday: Project) -> None:
    monday.put("b", [("1", "tuesday")] * 10, columns=["idx", "v"])
    assert monday.run("a").exit_code == 1
    assert "in.c-main.b has no column 'id'; did you mean 'idx'?" in monday.last_line
    assert "no longer match" not in monday.output


def test_a_renamed_column_is_healed_by_what_is_printed(monday: Project) -> None:
    monday.run()
    statement = re.search(r"and in psql: (ALTER TABLE .*;)", monday.output)
    monday.database.sql(statement[1])
    monday.edit("bronze/c.sql", "v text", "value text")
    monday.edit("silver/c.sql", "id, v FROM", "id, value AS v FROM")
    assert monday.run().exit_code == 0, monday.output
    assert monday.day("silver.c") == "tuesday"


def test_an_optional_column_is_null_where_it_is_missing_and_loaded_where_it_is_there(monday: Project) -> None:
    monday.registry["c"]["load"]["optional_columns"] = ["v"]
    assert monday.run().exit_code == 0
    assert monday.rows("silver.c")[0] == (1, None)
    monday.put_day("wednesday")
    assert monday.run().exit_code == 0
    assert monday.day("silver.c") == "wednesday"


def test_an_optional_column_that_bronze_does_not_have_is_a_typo(monday: Project) -> None:
    monday.registry["c"]["load"]["optional_columns"] = ["vv"]
    monday.put_day("tuesday")
    assert monday.run().exit_code == 1
    assert "bronze.c has no column 'vv', which optional_columns names; correct elt_jobs.json" in monday.last_line


def test_several_missing_columns_are_named_each_with_its_nearest(project: Project) -> None:
    table = "CREATE TABLE IF NOT EXISTS bronze.c (id text, color text, weight text, x text);"
    project.database.sql(f"CREATE SCHEMA bronze; {table}")
    project.script("bronze/c.sql", table)
    project.put("c", [("1", "red", "2")], columns=["id", "color_code", "weight_g"])
    assert project.run("c").exit_code == 1
    for said in (
        "no column 'color'; did you mean 'color_code'?, no column 'weight'; did you mean 'weight_g'?, no column 'x'",
        'ALTER TABLE bronze.c RENAME COLUMN "color" TO "color_code";'
        ' ALTER TABLE bronze.c RENAME COLUMN "weight" TO "weight_g";',
        '"optional_columns": ["color", "weight", "x"]',
    ):
        assert said in project.output


def test_the_printed_renames_can_be_typed_as_they_are_whatever_the_source_calls_its_columns(project: Project) -> None:
    """Reserved words, two columns similar to the same one, a leading digit, and names that are too long."""
    project.script(
        "bronze/c.sql",
        'CREATE TABLE IF NOT EXISTS bronze.c (id text, orders text, the_order text, q1_2025 text, "Ú""v" text);',
    )
    columns = ["id", "Order", "2025_q1", "order_" + "x" * 90]
    project.put("c", [("1", "2", "3", "4")], columns=columns)
    project.database.sql("CREATE SCHEMA bronze")
    project.database.sql((project.root / "sql_scripts/bronze/c.sql").read_text())
    assert project.run("c").exit_code == 1
    assert "x" * 80 not in project.output
    assert '"optional_columns": ["orders", "the_order", "q1_2025", "\\u00da\\"v"]' in project.output
    printed = re.findall(r"ALTER TABLE [^;]*;", project.output)
    assert len(printed) == 2
    for statement in printed:
        project.database.sql(statement)
    names = "SELECT attname FROM pg_attribute WHERE attrelid = 'bronze.c'::regclass AND attnum > 0 ORDER BY attnum"
    assert [name for (name,) in project.database.sql(names)] == ["id", "order", "the_order", "2025_q1", 'Ú"v']


def test_tables_without_a_column_in_common_are_refused_also_where_that_was_accepted(monday: Project) -> None:
    monday.put("c", [("1",)], columns=["other"])
    assert monday.run("c", accepted=MISSING).exit_code == 1
    assert "bronze.c and in.c-main.c have no column in common: is it the right table?" in monday.last_line


def test_columns_that_fill_themselves_are_no_part_of_the_contract(project: Project) -> None:
    project.script(
        "bronze/c.sql",
        "CREATE TABLE IF NOT EXISTS bronze.c (id text, v text, loaded_at timestamptz DEFAULT now(),"
        " number int GENERATED ALWAYS AS IDENTITY, longer text GENERATED ALWAYS AS (id || v) STORED);",
    )
    project.put("c", [("1", "monday", "no time", "no number")], columns=["id", "v", "Loaded-At", "number"])
    assert project.run("c").exit_code == 0
    assert project.database.sql("SELECT loaded_at > '2026-01-01', number, longer FROM bronze.c") == [
        (True, 1, "1monday")
    ]
    assert "has a column 'Loaded-At', but bronze.c fills 'loaded_at' itself, so it is not loaded" in project.output
    project.run("c")
    assert "Loaded-At" not in project.output


# ---- columns that bronze lacks --------------------------------------------------------------------------------------

#: columns that bronze lacks, and a value for each
UNWANTED = {
    "a NUL byte": (["note"], ["\0"]),
    "broken UTF-8": (["other_note"], ["\udcff\udcfe"]),
    "two that meet": (["Blob-x", "Blob x"], ["1", "2"]),
    "a system column": (["xmin", "ctid", "tableoid"], ["1", "2", "3"]),
    "a name of 64 characters": (["n" * 64], ["1"]),
    "a name of 700 bytes": (["ř" * 350], ["1"]),
    "too many": ([f"column_{number}" for number in range(1601)], ["1"] * 1601),
    "too wide for a page": ([f"wide_{number}" for number in range(1500)], ["x" * 20] * 1500),
    "quotes and line ends": (['a "b"\n', "'; DROP TABLE bronze.c"], ["1", "2"]),
}


def test_a_column_that_bronze_lacks_stops_nothing(monday: Project) -> None:
    for kind, (names, values) in UNWANTED.items():
        rows = [[str(number), kind, *values] for number in range(1, 11)]
        monday.put("c", rows, columns=["id", "v", *names])
        assert monday.run("c").exit_code == 0, (kind, monday.output)
        assert monday.day("silver.c") == kind
        assert "in.c-main.c has columns that bronze.c lacks; they are not loaded: " in monday.output, kind
        asked = [request.parameters["columns"] for request in monday.keboola.requests if request.kind == "export-async"]
        assert asked[-1] == ["id", "v"], kind
        longest = max(map(len, monday.output.splitlines()))
        assert longest < 1500, f"{kind}: a table with many columns must not fill the log"


def test_a_column_is_reported_once_when_it_first_appears(project: Project) -> None:
    columns = ["id", "v", "new"]
    for new, told in [("new", True), ("new", False), ("newer", True), ("newer", False)]:
        project.put("c", [("1", "monday", "x")], columns=["id", "v", new])
        assert project.run("c").exit_code == 0
        assert (f"they are not loaded: {new!r}\n    To load one" in project.output) == told, (new, columns)


def test_the_line_that_is_reported_works(project: Project) -> None:
    project.put("c", [("monday", "x", "1")], columns=["V", "extra-Column", "id"])
    project.run("c")
    assert project.rows("bronze.c") == [("1", "monday")]
    line = re.search(r"add to sql_scripts/bronze/c.sql: (SELECT .*;)", project.output)
    project.edit("bronze/c.sql", "COMMENT", f"{line[1]}\nCOMMENT")
    assert project.run("c").exit_code == 0
    assert project.rows("bronze.c") == [("1", "monday", "x")]


# ---- known before the export ----------------------------------------------------------------------------------------


def test_a_definition_that_is_not_applied_yet_decides_and_leaves_nothing_where_its_group_fails(
    project: Project,
) -> None:
    project.put_day("monday")
    project.edit("bronze/c.sql", "v text", "vv text")
    assert project.run("c").exit_code == 1
    assert "in.c-main.c has no column 'vv'; did you mean 'v'?" in project.last_line
    assert project.database.sql("SELECT to_regclass('bronze.c')") == [(None,)]
    assert "export-async" not in {request.kind for request in project.keboola.requests}


def test_a_definition_may_need_another_jobs_on_the_first_day(project: Project) -> None:
    project.registry["b"]["depends_on"] = ["a"]
    project.script("bronze/b.sql", "CREATE TABLE IF NOT EXISTS bronze.b (LIKE bronze.a);")
    project.put_day("monday")
    assert project.run().exit_code == 0, project.output


def test_a_definition_that_fails_does_so_before_the_export(project: Project) -> None:
    project.put_day("monday")
    project.script("bronze/c.sql", "CREATE TABLE bronze.c (id text,\n v txet);")
    assert project.run().exit_code == 1
    assert 'c (bronze/c.sql:2: type "txet" does not exist)' in project.last_line
    assert project.day("silver.a") == "monday"
    assert not [request for request in project.keboola.requests if request.path.endswith("c/export-async")]


def test_trying_a_definition_out_waits_briefly_for_a_lock_and_names_who_holds_it(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.edit("bronze/c.sql", "COMMENT", "SELECT elt.add_column('bronze.c', 'w', 'text');\nCOMMENT")
    reader = project.database.connect()
    reader.autocommit = False
    sql(reader, "SET application_name = 'a long report'; SELECT * FROM bronze.c")
    project.put_day("tuesday")
    assert project.run(lock_retry=LockRetry(lock_timeout=1.2, tries=2, pause=0.0)).exit_code == 1
    assert "bronze/c.sql:3: canceling statement due to lock timeout" in project.last_line
    assert "a long report" in project.last_line
    assert project.day("silver.a") == "tuesday" and project.day("silver.c") == "monday"
    reader.rollback()
    project.edit("bronze/c.sql", "'w'", "'v'")
    assert project.run().exit_code == 0


def test_a_column_that_a_colleague_adds_meanwhile_is_never_loaded_as_null(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.put_day("tuesday")
    project.keboola.faults.add(Fault("file", do=lambda: project.database.sql("ALTER TABLE bronze.c ADD w text")))
    assert project.run("c").exit_code == 1
    assert "bronze.c: its columns were changed during the export" in project.last_line
    assert project.day("silver.c") == "monday"


def test_a_typo_in_a_bronze_script_is_to_be_corrected_there(project: Project) -> None:
    """The table does not have the column, so no ALTER of it can be typed."""
    project.put_day("monday")
    project.edit("bronze/c.sql", "v text", "w text")
    for _ in ("no table", "a table without the column"):
        assert project.run("c").exit_code == 1
        assert "Only sql_scripts/bronze/c.sql names 'w' so far: correct it there, and run again." in project.output
        assert "ALTER TABLE" not in project.output
        project.database.sql(
            "CREATE SCHEMA IF NOT EXISTS bronze; CREATE TABLE IF NOT EXISTS bronze.c (id text, v text)"
        )
        project.script(
            "bronze/c.sql",
            "CREATE TABLE IF NOT EXISTS bronze.c (id text); SELECT elt.add_column('bronze.c', 'w', 'text');",
        )


class Unhurried(StopSignal):
    """Is never asked to stop, and its retries do not wait."""

    def pause(self, seconds: float) -> None:
        self.raise_if_requested()


# ---- rows that do not match the count -------------------------------------------------------------------------------


def test_an_export_of_no_file_is_no_empty_table_where_the_source_counts_rows(monday: Project) -> None:
    monday.put("c", [], rows_said=10)
    everything = Accepted(frozenset({("c", guard) for guard in ("count", "empty", "shrink")}))
    assert monday.run("c", accepted=everything).exit_code == 1
    assert "in.c-main.c: the source counts 10 rows, but its export lists no files" in monday.last_line
    assert monday.day("silver.c") == "monday"


def test_an_export_of_no_file_is_told_where_the_source_has_no_count(monday: Project) -> None:
    monday.put("c", [], external=True, rows_said=10)
    assert monday.run("c", accepted=Accepted(frozenset({("c", "empty")}))).exit_code == 0
    assert "the export lists no files, and the source has no row count: taken as 0 rows" in monday.output
    assert monday.rows("silver.c") == []


def test_the_count_of_an_external_bucket_is_not_compared(monday: Project) -> None:
    monday.put("c", [(str(number), "tuesday") for number in range(1, 11)], external=True, rows_said=7)
    assert monday.run("c").exit_code == 0
    assert monday.day("silver.c") == "tuesday"


def test_a_count_that_stays_wrong_is_accepted_once(monday: Project) -> None:
    monday.put("c", [(str(number), "tuesday") for number in range(1, 11)], rows_said=7)
    assert monday.run("c").exit_code == 1
    assert "the source counts 7 rows, its export held 10" in monday.last_line
    assert "--accept c:count" in monday.output
    assert monday.run("c", accepted=Accepted(frozenset({("c", "count")}))).exit_code == 0
    assert monday.day("silver.c") == "tuesday"
    assert monday.run("c").exit_code == 1


def test_a_slice_of_no_bytes_never_passes_for_no_rows(monday: Project) -> None:
    monday.put("c", [(str(number), "tuesday") for number in range(1, 11)], external=True)
    monday.keboola.faults.add(Fault("slice", "truncate", path="_0_2_0", nth=None))
    assert monday.run("c", stop=Unhurried()).exit_code == 1
    assert "the object has 0 bytes, but even an empty gzip stream has 20; gave up after 6 tries" in monday.last_line
    assert monday.day("silver.c") == "monday"
