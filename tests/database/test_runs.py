"""Whole runs in this process: groups, guards, runs of some jobs, and tables that change meanwhile."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, date, datetime, timedelta, tzinfo

import pytest

from lib.errors import JobConfigError, SettingsError
from lib.load.guards import Accepted
from lib.run.runner import LockRetry
from sandbox.faults import Fault
from tests.support.databases import sql
from tests.support.project import GOLD, Project


def test_a_run_publishes_every_layer_and_the_next_one_only_what_differs(project: Project) -> None:
    project.put_day("monday")
    assert project.run().exit_code == 0
    assert project.day("bronze.a") == project.day("silver.b") == "monday"
    project.put("a", [(str(number), "monday") for number in range(1, 10)] + [("11", "monday")])
    project.put("b", [(str(number), "monday") for number in range(1, 10)] + [("11", "monday")])
    assert project.run().exit_code == 0
    assert "silver/a.sql  +1 ~0 -1" in project.output
    assert project.last_line.startswith("run: 4 jobs published (1 not exported: unchanged), ")


def test_a_run_of_nothing_new_changes_no_row(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.run()
    assert "~" not in project.output and "+" not in project.output


# ---- groups ---------------------------------------------------------------------------------------------------------


def assert_group_stayed_and_c_moved_on(project: Project) -> None:
    assert project.day("bronze.a") == project.day("silver.a") == project.day("silver.b") == "monday"
    assert project.rows("gold.both")[0] == (1, "monday", "monday")
    assert project.day("silver.c") == "tuesday"


def test_a_missing_source_table_holds_its_group_back_and_lets_the_other_publish(monday: Project) -> None:
    monday.keboola.delete_table("in.c-main.b")
    assert monday.run().exit_code == 1
    assert_group_stayed_and_c_moved_on(monday)
    assert "1 failed: b (" in monday.last_line and "in.c-main.b" in monday.last_line
    assert "2 held back: a, both" in monday.last_line


def test_a_script_that_fails_in_silver_holds_its_group_back(monday: Project) -> None:
    monday.put("b", [("1", "tuesday"), ("one", "tuesday")] * 5)
    assert monday.run().exit_code == 1
    assert_group_stayed_and_c_moved_on(monday)
    assert 'b (silver/b.sql:4: invalid input syntax for type integer: "one")' in monday.last_line


def test_a_broken_check_holds_its_group_back_and_shows_the_rows(monday: Project) -> None:
    monday.put("b", [(str(number), "wednesday") for number in range(1, 11)])
    assert monday.run().exit_code == 1
    assert_group_stayed_and_c_moved_on(monday)
    assert "checks/same.sql: check failed: 10 rows\n    id=1  a='tuesday'  b='wednesday'" in monday.output
    assert "2 held back: a, b" in monday.last_line


def test_a_check_that_warns_lets_its_group_pass(project: Project) -> None:
    project.registry["both"]["checks"] = [{"script": "checks/same.sql", "on_failure": "warn"}]
    project.put_day("monday")
    project.put("b", [(str(number), "sunday") for number in range(1, 11)])
    assert project.run().exit_code == 0
    assert "both: checks/same.sql: check failed: 10 rows\n    id=1  a='monday'  b='sunday'\n" in project.output
    assert "    and 5 more\n    This check only warns, so the job is published.\n" in project.output
    assert project.database.sql("SELECT broken_by FROM elt.script_runs WHERE script = 'checks/same.sql'") == [(10,)]


def test_a_constraint_that_waits_for_commit_fails_its_job_and_not_the_run(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.database.sql("ALTER TABLE bronze.b ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    project.put_day("tuesday")
    project.put("b", [("1", "tuesday")] * 10)
    project.script("silver/b.sql", "SELECT 1;")
    assert project.run().exit_code == 1
    assert_group_stayed_and_c_moved_on(project)
    assert "b (cannot load bronze.b: duplicate key value violates unique constraint" in project.last_line


# ---- some jobs only -------------------------------------------------------------------------------------------------


def test_one_job_alone_also_refreshes_what_depends_on_it(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.script("silver/a.sql", "UPDATE silver.a SET v = v;")
    project.script(
        "gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT id, v AS a, v AS b, 1 AS one FROM silver.a;"
    )
    result = project.run("a")
    assert result.exit_code == 0
    assert [record.job for record in result.records] == ["a", "both"]
    assert project.rows("gold.both")[0] == (1, "monday", "monday", 1)


def test_one_job_alone_is_refused_where_its_group_moved_on_and_told_what_to_type(monday: Project) -> None:
    assert monday.run("a").exit_code == 1
    assert "a and b no longer match" in monday.last_line
    assert "python main.py run a b" in monday.last_line
    assert monday.day("silver.a") == "monday"
    assert monday.run("a", "b").exit_code == 0
    assert monday.day("silver.a") == "tuesday"


def test_one_job_alone_is_refused_before_its_group_was_ever_loaded(project: Project) -> None:
    project.put_day("monday")
    assert project.run("b").exit_code == 1
    assert "in.c-main.a was never loaded here" in project.last_line


def test_a_job_that_only_transforms_asks_keboola_nothing(project: Project) -> None:
    project.put_day("monday")
    project.run()
    del project.keboola.requests[:]
    assert project.run("both").exit_code == 0
    assert project.keboola.requests == []


# ---- sizes and columns ----------------------------------------------------------------------------------------------


def test_an_empty_export_never_replaces_a_filled_table(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.put("c", [])
    assert project.run().exit_code == 1
    assert project.day("silver.c") == "monday"
    assert "bronze.c: the export has 0 rows, min_rows is 1" in project.last_line


def test_growth_of_more_than_100_percent_is_reported_and_beyond_a_named_limit_refused(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.put("c", [(str(number), "tuesday") for number in range(1, 22)])
    project.registry["c"]["load"]["max_growth_percent"] = 100
    assert project.run("c").exit_code == 1
    assert "110 % more, max_growth_percent is 100" in project.last_line and "--accept c:growth" in project.output
    assert project.day("silver.c") == "monday"
    del project.registry["c"]["load"]["max_growth_percent"]
    assert project.run("c").exit_code == 0
    assert "c: bronze.c: the export has 21 rows, 10 were loaded before: 110 % more. It is loaded;" in project.output
    project.run("c")
    assert "% more" not in project.output


def test_a_source_that_was_imported_too_long_ago_is_not_exported(project: Project) -> None:
    project.put_day("monday")  # by the sandbox's clock: on the first of January
    project.registry["c"]["load"]["max_age_hours"] = 26
    assert project.run().exit_code == 1
    assert re.search(r"in.c-main.c was last imported [\d,]+ h ago, 2026-01-01 00:00 UTC; max_age", project.last_line)
    assert project.day("silver.a") == "monday"
    accepted = Accepted(frozenset({("c", "age")}))
    assert project.run(accepted=accepted).exit_code == 0
    assert project.database.sql("SELECT job, accepted_guards FROM elt.job_runs WHERE accepted_guards <> '{}'") == [
        ("c", ["age"])
    ]
    project.registry["c"]["load"]["max_age_hours"] = 1_000_000
    assert project.run().exit_code == 0


def test_a_shrunken_export_is_refused_until_a_person_accepts_it_once(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.put("c", [("1", "tuesday")])
    assert project.run("c").exit_code == 1
    assert "90 % fewer" in project.last_line and "--accept c:shrink" in project.output
    assert project.run("c", accepted=Accepted(frozenset({("c", "shrink")}))).exit_code == 0
    assert project.rows("silver.c") == [(1, "tuesday")]
    accepted = "SELECT job, rows_before, rows_loaded, accepted_guards FROM elt.job_runs WHERE accepted_shrink"
    assert project.database.sql(accepted) == [("c", 10, 1, ["shrink"])]


def test_columns_are_matched_by_name_and_a_new_one_is_reported_with_the_line_to_add(project: Project) -> None:
    project.put("c", [("monday", "x", "1")], columns=["V", "extra-Column", "id"])
    assert project.run("c").exit_code == 0
    assert project.rows("bronze.c") == [("1", "monday")]
    assert "SELECT elt.add_column('bronze.c', 'extra_column', 'text');" in project.output


def test_the_reported_line_works(project: Project) -> None:
    project.put("c", [("1", "monday", "x")], columns=["id", "v", "w"])
    project.run("c")
    script = project.root / "sql_scripts/bronze/c.sql"
    script.write_text(script.read_text() + "SELECT elt.add_column('bronze.c', 'w', 'text');\n")
    assert project.run("c").exit_code == 0
    assert project.rows("bronze.c") == [("1", "monday", "x")]


# ---- a source that moves --------------------------------------------------------------------------------------------


def test_a_table_that_changes_while_its_group_is_exported_is_exported_again(project: Project) -> None:
    project.put_day("monday")
    project.keboola.faults.add(Fault("file", do=lambda: project.put_day("tuesday")))
    assert project.run().exit_code == 0
    assert "in.c-main.a" in project.output and "exporting the group again" in project.output
    assert project.day("silver.a") == project.day("silver.b") == "tuesday"


def test_a_source_that_never_rests_fails_its_group_by_name(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.put_day("tuesday")
    days = itertools.count()
    project.keboola.faults.add(Fault("file", do=lambda: project.put_day(f"day {next(days)}"), nth=None))
    assert project.run("a", "b").exit_code == 1
    assert "changed in the source while it was exported, 3 times" in project.last_line
    assert project.day("silver.a") == "monday"


# ---- definitions ----------------------------------------------------------------------------------------------------


def test_an_unchanged_gold_script_is_not_run_and_a_changed_one_once(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.run()
    assert "gold/both.sql" not in project.output
    project.script("gold/both.sql", project_gold("Other words."))
    project.run()
    assert "gold/both.sql" in project.output
    project.run()
    assert "gold/both.sql" not in project.output
    assert project.database.sql("SELECT obj_description('gold.both'::regclass)") == [("Other words.",)]


def test_triggers_that_change_values_are_named_each_morning(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.database.sql(
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.v := upper(NEW.v); RETURN NEW; END $$;"
        "CREATE TRIGGER low BEFORE INSERT OR UPDATE ON silver.c FOR EACH ROW EXECUTE FUNCTION public.f();"
        "CREATE TRIGGER low BEFORE INSERT ON bronze.a FOR EACH ROW EXECUTE FUNCTION public.f()"
    )
    project.put_day("tuesday")
    project.registry["both"]["checks"] = []
    for _ in range(2):
        assert project.run().exit_code == 0
        assert "c: silver/c.sql: 10 rows of silver.c are not what was published" in project.output
        assert "a: bronze.a: triggers change 10 rows" in project.output
        assert "DROP TRIGGER low ON bronze.a;" in project.output


def test_an_ordinary_day_locks_no_reader_out_and_a_changed_view_is_reported(monday: Project) -> None:
    monday.run()
    assert "locked" not in monday.output
    monday.script("gold/both.sql", project_gold("Other words."))
    monday.run()
    assert 'gold."both": gold/both.sql locked it for 0.' in monday.output


def test_an_unchanged_gold_script_takes_no_lock_on_its_view(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.script(
        "checks/locks.sql",
        "SELECT mode FROM pg_locks"
        " WHERE relation = 'gold.both'::regclass AND pid = pg_backend_pid() AND mode <> 'AccessShareLock';",
    )
    project.registry["both"]["checks"] = ["checks/locks.sql"]
    assert project.run().exit_code == 0
    project.script("gold/both.sql", project_gold("Other words."))
    assert project.run().exit_code == 1
    assert "AccessExclusiveLock" in project.output


def test_a_view_that_was_dropped_or_replaced_by_hand_comes_back(project: Project) -> None:
    project.put_day("monday")
    project.run()
    for by_hand in (
        "DROP VIEW gold.both",
        "CREATE OR REPLACE VIEW gold.both AS SELECT 1 AS id, ''::text AS a, ''::text AS b",
    ):
        project.database.sql(by_hand)
        assert project.run().exit_code == 0
        assert len(project.rows("gold.both")) == 10
        assert (
            "both: gold.both was dropped or changed since gold/both.sql made it, so it was made again."
            in project.output
        )
        project.run()
        assert "somebody" not in project.output
    project.script("gold/both.sql", project_gold("Other words."))
    project.run()
    assert "somebody" not in project.output


def test_a_table_that_was_dropped_is_made_again_and_nobody_is_suspected(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.database.sql("DROP TABLE bronze.a CASCADE")
    project.run()
    assert "a: bronze.a was dropped since bronze/a.sql made it, so it was made again.\n" in project.output


@pytest.mark.parametrize("layer", ["bronze", "silver"])
def test_a_table_that_was_there_with_other_columns_is_told_with_what_to_do(project: Project, layer: str) -> None:
    project.put_day("monday")
    project.run()
    file = project.root / f"sql_scripts/{layer}/a.sql"
    extra = f"COMMENT ON COLUMN {layer}.a.more IS 'New in the CREATE TABLE above.';"
    project.script(f"{layer}/a.sql", f"{file.read_text()};\n{extra}\n")
    assert project.run().exit_code == 1
    assert f'column "more" of relation "{layer}.a" does not exist\n' in project.output
    assert "CREATE TABLE IF NOT EXISTS changes no table that is there. `check --online` prints" in project.output


def test_a_definition_of_a_group_that_was_held_back_is_applied_by_the_next_run(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.script("gold/both.sql", project_gold("Other words."))
    project.put("b", [(str(number), "sunday") for number in range(1, 11)])
    assert project.run().exit_code == 1
    assert project.database.sql("SELECT obj_description('gold.both'::regclass)") == [("a and b side by side.",)]
    project.put_day("monday")
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT obj_description('gold.both'::regclass)") == [("Other words.",)]


def test_a_view_that_cannot_be_replaced_names_its_dependants_and_the_commands(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.database.sql("CREATE VIEW public.of_a_colleague AS SELECT a FROM gold.both")
    project.database.sql("GRANT SELECT ON gold.both TO PUBLIC")
    project.script(
        "gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT id AS first, v AS a, v AS b FROM silver.a;"
    )
    assert project.run().exit_code == 1
    assert 'gold/both.sql:1: cannot change name of view column "id" to "first"' in project.last_line
    assert 'DROP VIEW public.of_a_colleague;\n        DROP VIEW gold."both";' in project.output
    assert 'GRANT SELECT ON gold."both" TO PUBLIC;' in project.output
    assert project.day("silver.c") == "monday"


def project_gold(comment: str) -> str:
    return GOLD.replace("a and b side by side.", comment)


# ---- other faults ---------------------------------------------------------------------------------------------------


def test_a_script_with_commit_is_refused_by_file_and_line_before_anything_runs(project: Project) -> None:
    project.put_day("monday")
    project.script("silver/c.sql", "SELECT 1;\n\n  COMMIT;\n")
    with pytest.raises(JobConfigError, match=r"silver/c\.sql:3: COMMIT is transaction control"):
        project.run()
    assert project.keboola.requests == []


def test_a_lock_that_somebody_holds_is_named_and_the_other_group_publishes(monday: Project) -> None:
    colleague = monday.database.connect()
    colleague.autocommit = False
    sql(colleague, "SET application_name = 'a long lunch'; LOCK TABLE silver.a")
    assert monday.run(lock_retry=LockRetry(lock_timeout=1.2, tries=2, pause=0.0)).exit_code == 1
    assert f"backend {colleague.info.backend_pid} (postgres, a long lunch" in monday.output
    assert f"SELECT pg_terminate_backend({colleague.info.backend_pid});" in monday.output
    colleague.rollback()
    assert_group_stayed_and_c_moved_on(monday)


def test_a_cast_that_fails_names_the_value_and_where_the_rows_stay_until_the_next_run(monday: Project) -> None:
    monday.put("a", [*((str(number), "tuesday") for number in range(9)), ("2 pieces", "tuesday")])
    assert monday.run().exit_code == 1
    assert 'silver/a.sql:4: invalid input syntax for type integer: "2 pieces"' in monday.output
    assert "The rows as received are in elt_staging.r2_a until the next run." in monday.output
    assert monday.database.sql("SELECT v FROM elt_staging.r2_a WHERE id = '2 pieces'") == [("tuesday",)]
    assert monday.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'") == [("r2_a",)]
    monday.put_day("tuesday")
    assert monday.run().exit_code == 0
    assert monday.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'") == []


def test_the_rows_stay_too_where_a_check_fails_or_a_constraint_is_violated(monday: Project) -> None:
    monday.script("checks/none.sql", "SELECT id FROM bronze.b")
    monday.registry["b"]["checks"] = ["checks/none.sql"]
    monday.database.sql("ALTER TABLE silver.c ADD CHECK (v <> 'tuesday')")
    monday.put_day("tuesday")
    assert monday.run().exit_code == 1
    for table in ("r2_b", "r2_c"):
        assert f"The rows as received are in elt_staging.{table} until the next run." in monday.output
    assert re.search(r"Failing row contains \(\d+, tuesday\)\.", monday.output)
    monday.script("silver/c.sql", "SELECT oops;")
    monday.run()
    assert "r3_c" not in monday.output, "this failure has nothing to do with the rows"


def test_a_publication_that_makes_deletes_impossible_is_named_with_the_statement_that_helps(monday: Project) -> None:
    """Bronze tables have no primary key, by which a subscriber could find the deleted row."""
    monday.database.sql("CREATE PUBLICATION replica FOR TABLE bronze.a")
    monday.put_day("tuesday")
    assert monday.run().exit_code == 1
    (remedy,) = re.findall(r"[Tt]ype in psql, then run again: (ALTER TABLE .*;)", monday.output)
    monday.database.sql(remedy)
    assert monday.run().exit_code == 0
    assert monday.day("bronze.a") == "tuesday"


def test_nothing_of_a_run_stays_in_staging_and_litter_of_a_dead_one_is_swept(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.database.sql("CREATE TABLE elt_staging.r99_litter (v text)")
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'") == []


def test_scripts_read_the_date_of_the_run_which_is_today_unless_a_backfill_says_otherwise(project: Project) -> None:
    project.put_day("monday")
    project.script(
        "silver/c.sql",
        "CREATE TABLE IF NOT EXISTS silver.days (day date); INSERT INTO silver.days SELECT elt.run_date();",
    )
    project.run("c", run_date=date(2026, 1, 31))
    project.run("c")
    assert project.rows("silver.days") == [(date(2026, 1, 31),), (datetime.now(UTC).date(),)]
    assert project.database.sql("SELECT run_date FROM elt.runs ORDER BY run_id") == project.rows("silver.days")
    assert project.database.sql("SELECT elt.run_date() = current_date") == [(True,)]


def test_rows_of_bronze_that_did_not_change_are_not_written(monday: Project) -> None:
    assert monday.run().exit_code == 0
    before = dict(monday.database.sql("SELECT id, xmin::text FROM bronze.c"))
    monday.put("c", [(str(number), "wednesday" if number == 3 else "tuesday") for number in range(1, 12)])
    assert monday.run().exit_code == 0
    after = dict(monday.database.sql("SELECT id, xmin::text FROM bronze.c"))
    assert {row for row in after if after[row] != before.get(row)} == {"3", "11"}
    assert monday.database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'elt_staging'") == [(0,)]


def test_a_change_by_hand_in_bronze_is_told_once_and_overwritten(monday: Project) -> None:
    assert monday.run().exit_code == 0
    ((run,),) = monday.database.sql("SELECT max(run_id) FROM elt.runs")
    monday.database.sql("UPDATE bronze.a SET v = 'by hand' WHERE id = '3'")
    assert monday.run().exit_code == 0
    assert f"bronze.a was changed by hand since run {run}. This load has overwritten it" in monday.output
    assert "bronze.b was changed by hand" not in monday.output
    assert monday.day("bronze.a") == "tuesday"
    assert monday.run().exit_code == 0
    assert "by hand" not in monday.output


def test_if_the_comparison_fails_every_row_is_replaced(monday: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.load.difference.COMPARE", "SELECT 1 / 0")
    assert monday.run().exit_code == 0
    assert "cannot compare bronze.a with its export: division by zero" in monday.output
    assert "every row is replaced" in monday.output
    assert monday.day("bronze.a") == monday.day("silver.a") == "tuesday"


@pytest.mark.parametrize("hours", [-25, 25])
def test_a_clock_more_than_a_day_from_the_servers_is_refused_unless_the_day_is_named(
    project: Project, hours: int
) -> None:
    project.put_day("monday")

    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(hours=hours)

    with pytest.raises(SettingsError, match=r"this machine's clock says .* PostgreSQL's .*--date\.$"):
        project.run("c", now=now)
    assert project.database.sql("SELECT to_regclass('elt.runs')") == [(None,)]
    assert project.run("c", now=now, run_date=date(2026, 1, 31)).exit_code == 0
    assert project.run("c", now=lambda zone: datetime.now(zone) + timedelta(hours=hours / 25 * 23)).exit_code == 0


def test_a_date_more_than_a_year_before_the_first_published_one_needs_a_word(project: Project) -> None:
    project.put_day("monday")
    assert project.run("c", run_date=date(2026, 1, 31)).exit_code == 0
    assert project.run("c", run_date=date(2025, 1, 31)).exit_code == 0
    with pytest.raises(SettingsError, match="--date 2006-01-31 is more than a year before .*2025-01-31.*--accept-date"):
        project.run("c", run_date=date(2006, 1, 31))
    assert project.database.sql("SELECT count(*) FROM elt.runs") == [(2,)]
    assert project.run("c", run_date=date(2006, 1, 31), accept_date=True).exit_code == 0
    project.database.sql("DELETE FROM elt.job_runs")
    assert project.run("c", run_date=date(1999, 1, 31)).exit_code == 0  # nothing was published


def test_rows_that_staging_lost_are_never_published_as_an_empty_table(monday: Project) -> None:
    """After a crash, an unlogged table exists but is empty."""
    monday.registry["c"]["load"] |= {"min_rows": 0, "max_shrink_percent": 100}
    monday.script(
        "bronze/c.sql",
        "DO $$ DECLARE staged text; BEGIN FOR staged IN SELECT tablename FROM pg_tables"
        " WHERE tablename ~ '^[rcg][0-9]+_c$' LOOP EXECUTE 'DELETE FROM elt_staging.' || staged; END LOOP; END $$;",
    )
    assert monday.run().exit_code == 1
    assert "bronze.c: 10 rows were staged, 0 arrived" in monday.last_line
    assert monday.day("bronze.c") == monday.day("silver.c") == "monday"
    assert monday.day("silver.a") == "tuesday"
