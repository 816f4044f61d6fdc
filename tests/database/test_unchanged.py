"""What did not change is not exported, and a run of which nothing changed publishes nothing; and what ends that."""

from __future__ import annotations

import io
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import psycopg2
import pytest

from lib.cli.arguments import run_parser
from lib.cli.console import Console
from lib.cli.run import run_jobs
from lib.cli.status import status
from lib.config.jobs import Job, Script
from lib.config.settings import Postgres
from lib.elt_schema import installation
from lib.elt_schema.installation import install
from lib.load.guards import Accepted
from lib.postgres.connection import Connection, execute
from lib.postgres.embedded.server import Server
from lib.postgres.transaction import transaction
from lib.run.flow import counting_from
from lib.run.table_states import Named, StateRecorder, read_states, stored_states, words_of
from lib.transform.scripts import ScriptResult
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.databases import EmptyDatabase, fresh_database, sql
from tests.support.project import Project

DAY = date(2026, 11, 28)


@pytest.fixture
def loaded(project: Project) -> Project:
    """A project whose last run published monday. The sandbox's bucket of c shows no external schema."""
    project.put_day("monday")
    assert run(project).exit_code == 0, project.output
    return project


def run(project: Project, *names: str, **options):
    return project.run(*names, **{"run_date": DAY, **options})


def edit(project: Project, text: str) -> None:
    """Statements of a session that reports its counts at once; by itself it may take ten seconds."""
    with closing(project.database.connect()) as connection:
        for statement in [*re.split(r"(?<!\\);\s", text), "SELECT pg_stat_force_next_flush()"]:
            execute(connection, statement.replace("\\;", ";"))


def exported(project: Project) -> list[str]:
    """The tables that were exported since the last call, sorted."""
    found = [logged.path.split("/")[-2][-1] for logged in project.keboola.requests if logged.kind == "export-async"]
    project.keboola.requests.clear()
    return sorted(found)


def newest(project: Project, columns: str) -> list[tuple]:
    return project.database.sql(
        f"SELECT {columns} FROM elt.job_runs WHERE run_id = (SELECT max(run_id) FROM elt.runs) ORDER BY job"
    )


# ---- exports ---------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_exported_and_all_transforms_run(loaded: Project) -> None:
    assert exported(loaded) == ["a", "b", "c"]
    loaded.put("c", [(str(number), "tuesday") for number in range(1, 11)])
    loaded.script("silver/a.sql", "UPDATE silver.a SET v = 'from ' || v;")
    loaded.registry["both"]["checks"] = []
    assert run(loaded).exit_code == 0, loaded.output
    assert exported(loaded) == ["c"]
    assert loaded.day("silver.c") == "tuesday" and loaded.day("silver.a") == "from monday"
    assert "stage    a: unchanged since run 1, not exported" in loaded.output
    assert loaded.last_line.startswith("run: 4 jobs published (2 not exported: unchanged), ")
    assert newest(loaded, "job, status, is_unchanged, rows_loaded") == [
        ("a", "published", True, None),
        ("b", "published", True, None),
        ("both", "published", None, None),
        ("c", "published", False, 10),
    ]
    same = "SELECT count(DISTINCT (source_version, source_imported_at)) FROM elt.job_runs WHERE job = 'a'"
    assert loaded.database.sql(same) == [(1,)]
    rows = "SELECT rows_loaded, is_unchanged FROM elt.job_status WHERE job = 'a'"
    assert loaded.database.sql(rows) == [(10, True)]


def test_a_run_of_one_job_exports_what_changed_only_and_full_exports_all(loaded: Project) -> None:
    exported(loaded)
    assert run(loaded, "a").exit_code == 0 and exported(loaded) == []
    assert run(loaded, "a", full=True).exit_code == 0 and exported(loaded) == ["a"]
    assert run(loaded, full=True).exit_code == 0 and exported(loaded) == ["a", "b", "c"]
    loaded.put_day("tuesday")
    assert run(loaded, "a").exit_code == 1  # b changed
    assert run(loaded, "a", "b").exit_code == 0 and exported(loaded) == ["a", "b"]


#: what makes a run export bronze.c again, and what takes it back
EXPORTED_AGAIN = [
    ("UPDATE bronze.c SET v = 'x' WHERE id = '1'", ""),
    ("INSERT INTO bronze.c VALUES ('11', 'x')", ""),
    ("DELETE FROM bronze.c WHERE id = '1'", ""),
    ("DELETE FROM bronze.c WHERE id = '1'; INSERT INTO bronze.c VALUES ('1', 'x')", ""),
    ("BEGIN; UPDATE bronze.c SET v = 'x'; ROLLBACK", ""),
    ("TRUNCATE bronze.c", ""),
    ("VACUUM FULL bronze.c", ""),
    ("DROP TABLE bronze.c; CREATE TABLE bronze.c AS SELECT i::text AS id, 'x' AS v FROM generate_series(1, 10) i", ""),
    ("ALTER TABLE bronze.c DROP COLUMN v; ALTER TABLE bronze.c ADD COLUMN v text", ""),
    (
        "ALTER TABLE bronze.c RENAME id TO x; ALTER TABLE bronze.c RENAME v TO id; ALTER TABLE bronze.c RENAME x TO v",
        "",
    ),
    ("SELECT pg_stat_reset(); DELETE FROM bronze.c WHERE id = '1'", ""),
    ("SELECT pg_stat_reset_single_table_counters('bronze.c'::regclass)", ""),
    ("TRUNCATE elt.table_states", ""),
    (
        "CREATE TABLE public.more () INHERITS (bronze.c); INSERT INTO public.more VALUES ('11', 'x')",
        "TABLE public.more",
    ),
    (
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW\\; END'; "
        "CREATE TRIGGER f BEFORE INSERT ON bronze.c FOR EACH ROW EXECUTE FUNCTION public.f()",
        "TRIGGER f ON bronze.c",
    ),
]
HARMLESS = """
    VACUUM bronze.c; VACUUM (FREEZE, ANALYZE) bronze.c; SELECT count(*) FROM bronze.c; CREATE INDEX ON bronze.c (id);
    GRANT SELECT ON bronze.c TO PUBLIC; COMMENT ON TABLE bronze.c IS 'x'; ALTER TABLE bronze.c SET (fillfactor = 50)
"""


def test_bronze_is_loaded_again_if_it_may_not_be_what_its_source_holds(loaded: Project) -> None:
    exported(loaded)
    edit(loaded, HARMLESS)
    assert run(loaded, "c").exit_code == 0 and exported(loaded) == []
    for change, made in EXPORTED_AGAIN:
        edit(loaded, change)
        assert run(loaded, "c").exit_code == 0, loaded.output
        assert exported(loaded) == ["c"], change
        assert loaded.day("bronze.c") == "monday" if made != "TABLE public.more" else loaded.day("ONLY bronze.c")
        if made:
            assert run(loaded, "c").exit_code == 0
            assert exported(loaded) == (["c"] if "TRIGGER" in made else []), "a trigger may do anything"
            edit(loaded, f"DROP {made}")
            run(loaded, "c")
            exported(loaded)
        assert run(loaded, "c").exit_code == 0 and exported(loaded) == [], change


def test_what_the_project_says_of_a_job_counts_too(loaded: Project) -> None:
    exported(loaded)
    loaded.edit("bronze/c.sql", "As received", "As it came")
    assert run(loaded, "c").exit_code == 0 and exported(loaded) == ["c"]
    assert run(loaded, "c", accepted=Accepted(frozenset({("c", "shrink")}))).exit_code == 0
    assert exported(loaded) == ["c"], "who accepts a guard wants to load"
    loaded.keboola.put_table("in.c-other.c", columns=["id", "v"], rows=[("1", "other")] * 6)
    loaded.registry["c"]["extract"].update(keboola_table="in.c-other.c")
    loaded.script("silver/c.sql", "SELECT 1;")
    assert run(loaded, "c").exit_code == 0 and loaded.day("bronze.c") == "other"


def test_jobs_that_swap_their_tables_load_them_again(loaded: Project) -> None:
    loaded.put("c", [(str(number), "sunday") for number in range(1, 11)])
    for name in ("a", "b", "c"):
        loaded.registry[name]["transform"] = [f"bronze/{name}.sql"]
    del loaded.registry["both"]
    assert run(loaded).exit_code == 0, loaded.output
    for name, other in ("a", "c"), ("c", "a"):
        loaded.registry[name].update(load={"table": f"bronze.{other}"}, transform=[f"bronze/{other}.sql"])
    assert run(loaded).exit_code == 0, loaded.output
    assert (loaded.day("bronze.a"), loaded.day("bronze.c")) == ("sunday", "monday")


def test_another_server_may_use_the_same_ids_times_and_numbers(loaded: Project) -> None:
    with KeboolaServer(polls=0, clock=lambda: 0.0) as other:
        for name in ("a", "b", "c"):
            table = loaded.keboola._api.tables[f"in.c-main.{name}"]
            rows = [(number, "other") for number, _ in table.rows()]
            other.put_table(table.id, columns=table.columns, rows=rows, imported_at=table.changed)
        own, loaded.keboola = loaded.keboola, other
        loaded.settings = replace(loaded.settings, keboola_url=other.url)
        assert run(loaded).exit_code == 0 and loaded.day("silver.c") == "other"
        loaded.keboola = own


def test_a_table_whose_dates_do_not_follow_its_rows_is_always_exported(project: Project) -> None:
    project.put_day("monday")
    project.put("c", [("1", "monday")], external=True)
    run(project)
    exported(project)
    assert run(project).exit_code == 0 and exported(project) == ["c"]
    assert newest(project, "job, is_unchanged")[3] == ("c", False)


def test_a_file_that_is_as_it_was_is_not_read_again_and_a_database_always(loaded: Project) -> None:
    file = loaded.root / "c.csv"
    file.write_text("id,v\n" + "".join(f"{number},file\n" for number in range(1, 11)))
    loaded.registry["c"]["extract"] = {"duckdb": "extract/c.sql"}
    loaded.script("extract/c.sql", "SELECT * FROM read_csv('c.csv', all_varchar = true);")
    for expected in (False, True):
        assert run(loaded, "c").exit_code == 0, loaded.output
        assert newest(loaded, "is_unchanged") == [(expected,)]
    for word in ("now()", "current_date", "RANDOM()", "gen_random_uuid()"):
        text = f"SELECT id, v, {word} AS w FROM read_csv('c.csv', all_varchar = true);"
        loaded.script("extract/c.sql", text)
        for _ in range(2):
            assert run(loaded, "c").exit_code == 0 and newest(loaded, "is_unchanged") == [(False,)], loaded.output
    loaded.script("extract/c.sql", "SELECT * FROM read_csv('c.csv', all_varchar = true);")
    file.write_text(file.read_text().replace("file", "elif"))
    assert run(loaded, "c").exit_code == 0 and loaded.day("silver.c") == "elif"
    server = "(SELECT 1 FROM duckdb_schemas() LIMIT 1)"  # stands for what no file is
    loaded.script("extract/c.sql", f"SELECT i::VARCHAR AS id, 'made' AS v FROM range(10) AS r (i), {server};")
    for _ in range(2):
        assert run(loaded, "c").exit_code == 0 and newest(loaded, "is_unchanged") == [(False,)], loaded.output


def test_guards_speak_about_a_source_that_did_not_change(loaded: Project) -> None:
    loaded.registry["c"]["load"]["max_age_hours"] = 26  # by the sandbox's clock it was imported in January
    assert run(loaded).exit_code == 1 and "in.c-main.c was last imported" in loaded.last_line
    loaded.registry["c"]["load"] = {"table": "bronze.c", "min_rows": 11}
    assert run(loaded).exit_code == 1 and "the export has 10 rows, min_rows is 11" in loaded.last_line
    assert run(loaded, accepted=Accepted(frozenset({("c", "empty")}))).exit_code == 0
    assert run(loaded).exit_code == 1, "it was accepted once"
    loaded.registry["c"]["load"] = {"table": "bronze.c"}
    loaded.put("c", [(str(number), "tuesday") for number in range(1, 11)], rows_said=11)
    assert run(loaded, accepted=Accepted(frozenset({("c", "count")}))).exit_code == 0
    assert run(loaded).exit_code == 1 and "the source counts 11 rows, its export held 10" in loaded.last_line


def test_a_failed_run_exports_what_it_had_touched_again(loaded: Project) -> None:
    loaded.put("b", [(str(number), "tuesday") for number in range(1, 11)])
    assert run(loaded).exit_code == 1  # the check says that a and b differ
    exported(loaded)
    loaded.put("b", [(str(number), "monday") for number in range(1, 11)])
    assert run(loaded).exit_code == 0
    assert exported(loaded) == ["b"] and loaded.day("silver.b") == "monday"


def test_a_table_that_was_not_exported_must_not_move_while_its_group_is(loaded: Project) -> None:
    exported(loaded)
    loaded.put("b", [(str(number), "tuesday") for number in range(1, 11)])
    moving = Fault("file", do=lambda: loaded.put("a", [(str(number), "tuesday") for number in range(1, 11)]))
    loaded.keboola.faults.add(moving)
    assert run(loaded).exit_code == 0, loaded.output
    assert "in.c-main.a changed in the source while it was exported: exporting the group again" in loaded.output
    assert exported(loaded) == ["a", "b", "b"] and loaded.day("silver.a") == "tuesday"
    assert newest(loaded, "job, is_unchanged")[:2] == [("a", False), ("b", False)]


def test_an_edit_after_a_run_has_looked_is_noticed_by_the_next(loaded: Project) -> None:
    """It comes between the look at the tables and the publish transaction, which must not take it for its own."""
    loaded.put("c", [(str(number), "tuesday") for number in range(1, 11)])
    late = Fault("file", do=lambda: edit(loaded, "UPDATE bronze.a SET v = 'mine' WHERE id = '1'"))
    loaded.keboola.faults.add(late)
    loaded.registry["both"]["checks"] = []
    assert run(loaded).exit_code == 0 and "unchanged since" in loaded.output
    assert run(loaded).exit_code == 0
    assert loaded.day("bronze.a") == loaded.day("silver.a") == "monday"


# ---- all of a run ---------------------------------------------------------------------------------------------------


def is_left_out(project: Project, **options) -> bool:
    """Whether the next run publishes nothing, because nothing changed."""
    result = run(project, **options)
    assert result.exit_code == 0, project.output
    ((is_unchanged,),) = project.database.sql("SELECT is_unchanged FROM elt.runs ORDER BY run_id DESC LIMIT 1")
    assert is_unchanged == (result.records == ()) == (result.unchanged_since is not None)
    return is_unchanged


def test_a_run_in_which_nothing_changed_publishes_nothing_and_counts_as_good(loaded: Project) -> None:
    exported(loaded)
    assert is_left_out(loaded) and is_left_out(loaded)
    kinds = [logged.kind for logged in loaded.keboola.requests]
    assert sorted(kinds) == ["table"] * 6 + ["verify"] * 2
    assert "run: nothing has changed since run 1, 20" in loaded.last_line
    shown = "SELECT run_id, status, jobs_published, jobs_not_published, rows_loaded, error, is_unchanged"
    assert loaded.database.sql(f"{shown} FROM elt.recent_runs LIMIT 1") == [(3, "done", 0, 0, None, None, True)]
    assert loaded.database.sql("SELECT status, run_id FROM elt.job_status WHERE job = 'a'") == [("published", 1)]
    loaded.database.sql("UPDATE elt.runs SET started_at = '2026-11-01Z' WHERE run_id = 1")
    loaded.database.sql("UPDATE elt.runs SET started_at = '2026-11-02Z' WHERE run_id = 3")
    loaded.database.sql("DELETE FROM elt.runs WHERE run_id = 2")
    began = counting_from(loaded.database.connect(), datetime.fromisoformat("2026-11-03 12:00+00"))
    assert began == datetime.fromisoformat("2026-11-02 00:00+00")
    loaded.put("c", [(str(number), "tuesday") for number in range(1, 11)])
    assert not is_left_out(loaded) and loaded.day("silver.c") == "tuesday"
    assert is_left_out(loaded)


ERP = """
    CREATE SCHEMA erp; CREATE TABLE erp.rates (x int); CREATE VIEW erp.now AS SELECT x FROM erp.rates;
    CREATE TABLE public."Odd one" (x int); CREATE TABLE public.plain (x int);
    CREATE FUNCTION erp.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION public.g(x erp.now) RETURNS int LANGUAGE sql AS 'SELECT 1'
"""
RUN_AGAIN: list[str | Callable[[Project], object]] = [
    "UPDATE silver.a SET v = 'x' WHERE id = 1",
    "INSERT INTO erp.rates VALUES (1)",
    "INSERT INTO public.plain VALUES (1)",
    'INSERT INTO public."Odd one" VALUES (1)',
    "CREATE OR REPLACE VIEW erp.now AS SELECT 2 AS x FROM erp.rates",
    "CREATE OR REPLACE FUNCTION erp.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
    "CREATE OR REPLACE VIEW gold.both AS SELECT 1 AS id, ''::text AS a, ''::text AS b",
    "DROP VIEW gold.both",
    "DROP TABLE silver.c CASCADE",
    "SELECT pg_stat_reset()",
    lambda project: project.edit("checks/same.sql", "ORDER BY id", "ORDER BY a"),
    lambda project: project.edit("silver/a.sql", "id::integer", "id::int"),
    lambda project: project.registry["c"]["load"].update(max_shrink_percent=49),
    lambda project: run(project, "c"),
    "INSERT INTO elt.runs (status, run_date, jobs, process) VALUES ('lost', current_date, '{}', '')",
]


def test_a_run_is_not_left_out_if_something_changed_besides_the_sources(loaded: Project) -> None:
    edit(loaded, ERP)
    reads = 'SELECT count(*) FROM erp.now, plain, "Odd one" WHERE x = erp.f() AND g(now) = 1'
    loaded.script("silver/c.sql", f"{loaded_text(loaded, 'silver/c.sql')}\n-- {reads}")
    assert not is_left_out(loaded)
    for change in RUN_AGAIN:
        assert is_left_out(loaded), change
        if isinstance(change, str):
            edit(loaded, change)
        else:
            change(loaded)
        assert not is_left_out(loaded), change
        if isinstance(change, str) and "VIEW gold" in change:
            assert not is_left_out(loaded), "that it was made again was told, so once more nothing is left out"


LONG = "x" * 70
REACHED = f"""
    CREATE SCHEMA erp; CREATE TABLE erp.rates (x int, y int DEFAULT 1); CREATE TABLE erp.deep (x int);
    CREATE TABLE erp.deeper (x int); CREATE TABLE erp.dollar (x int); CREATE TABLE erp.escaped (x int);
    CREATE TABLE erp.unicode (x int); CREATE TABLE erp.{LONG} (x int);
    CREATE FUNCTION erp.body() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM erp.deep';
    CREATE FUNCTION erp.atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM erp.deeper; END;
    CREATE FUNCTION erp.under() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION erp.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER f BEFORE INSERT ON erp.rates FOR EACH ROW EXECUTE FUNCTION erp.f();
    CREATE VIEW erp.top AS SELECT erp.under() AS x, 1 AS y;
    CREATE TYPE erp.kinds AS ENUM ('a'); CREATE DOMAIN erp.few AS int DEFAULT 1;
    CREATE AGGREGATE erp.total (int) (sfunc = int4pl, stype = int, initcond = '0')
"""
READS = rf"""
    SELECT erp.body(), erp.atomic(), erp.total(x), null::erp.kinds, null::erp.few FROM erp.top, erp.rates;
    EXECUTE $q$SELECT FROM erp.dollar$q$; EXECUTE E'SELECT FROM\nerp.escaped';
    SELECT FROM erp.U&"\0075\006eicode", erp.{LONG}
"""


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO erp.deep VALUES (1)",
        "INSERT INTO erp.deeper VALUES (1)",
        "INSERT INTO erp.dollar VALUES (1)",
        "INSERT INTO erp.escaped VALUES (1)",
        "INSERT INTO erp.unicode VALUES (1)",
        f"INSERT INTO erp.{LONG} VALUES (1)",
        "CREATE OR REPLACE FUNCTION erp.under() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "ALTER VIEW erp.top RENAME x TO z",
        "ALTER TYPE erp.kinds ADD VALUE 'b'",
        "ALTER DOMAIN erp.few SET DEFAULT 2",
        "DROP AGGREGATE erp.total (int);"
        " CREATE AGGREGATE erp.total (int) (sfunc = int4pl, stype = int, initcond = '5')",
        "ALTER TABLE erp.rates ALTER y SET DEFAULT 2",
        "ALTER TABLE erp.rates DISABLE TRIGGER f",
        "CREATE RULE r AS ON INSERT TO erp.rates DO ALSO NOTHING",
    ],
)
def test_whatever_scripts_reach_is_part_of_the_state(module_database: EmptyDatabase, change: str) -> None:
    with closing(module_database.connect()) as connection:
        sql(connection, f"DROP SCHEMA IF EXISTS erp CASCADE; {REACHED}")
        named = Named(frozenset(), words_of(READS), ("public",))
        before = read_states(connection, named)
        assert before == read_states(connection, named)
        sql(connection, change)
        sql(connection, "SELECT pg_stat_force_next_flush()")
        assert before != read_states(connection, named)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE OR REPLACE FUNCTION erp.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE OR REPLACE VIEW gold.both AS SELECT 1 AS id, ''::text AS a, ''::text AS b",
    ],
)
def test_what_another_session_defines_anew_during_a_run_is_noticed_by_the_next_one(
    loaded: Project, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(loaded, "CREATE SCHEMA erp; CREATE FUNCTION erp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    loaded.script("silver/c.sql", f"{loaded_text(loaded, 'silver/c.sql')}\n-- erp.f()")
    loaded.registry["both"]["checks"] = []  # else the view would be locked
    on_script, changes = Console.on_script, [change]

    def tell(console: Console, result: ScriptResult) -> None:
        on_script(console, result)
        if changes and result.path == "silver/c.sql":
            try:
                edit(loaded, f"SET lock_timeout = '500ms'; {changes.pop()}")
            except psycopg2.errors.LockNotAvailable:
                refused.append(change)

    refused: list[str] = []
    monkeypatch.setattr(Console, "on_script", tell)
    assert not is_left_out(loaded) and not changes
    if refused:  # the run holds the view, so nobody can define it anew
        return
    assert not is_left_out(loaded)
    while not is_left_out(loaded):  # that a view was made again is told once more
        assert loaded.database.sql("SELECT count(*) FROM elt.runs") < [(6,)]
    assert loaded.rows('gold."both"') == [(number, "monday", "monday") for number in range(1, 11)]


def test_after_a_run_that_defined_something_itself_there_is_nothing_left_to_do(loaded: Project) -> None:
    add = "SELECT elt.add_column('silver.c', 'w', 'text');\n"
    loaded.script("silver/c.sql", add + loaded_text(loaded, "silver/c.sql"))
    loaded.edit("gold/both.sql", "b.v AS b FROM", "b.v AS b, 2 AS two FROM")
    assert not is_left_out(loaded)
    assert is_left_out(loaded)


def test_a_copied_database_is_another_one(main_server: Server, loaded: Project) -> None:
    edit(loaded, "VACUUM")  # all counts are reported
    loaded.database.close()
    with fresh_database(main_server, loaded.database.name) as copy:
        states = [read_states(connection, Named(frozenset({"bronze.c"})))
                  for database in (loaded.database, copy) for connection in [database.connect()]]  # fmt: skip
        assert states[0].keys() == states[1].keys() == {"bronze.c"} and states[0] != states[1]


def test_a_newer_schema_elt_lets_everything_run(
    loaded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(installation.FOLDER, tmp_path / "elt")
    (tmp_path / "elt" / "zz.sql").write_text("SELECT 1;")
    monkeypatch.setattr(installation, "FOLDER", tmp_path / "elt")
    assert not is_left_out(loaded) and is_left_out(loaded)


def loaded_text(project: Project, path: str) -> str:
    return (project.root / "sql_scripts" / path).read_text()


def test_what_does_not_belong_to_the_scripts_may_change(loaded: Project) -> None:
    edit(loaded, ERP)
    assert not is_left_out(loaded), "a name in quotes is not looked for: it counts as named"
    assert is_left_out(loaded)
    edit(loaded, "INSERT INTO erp.rates VALUES (1); INSERT INTO public.plain VALUES (1); VACUUM silver.a")
    assert is_left_out(loaded)


def test_another_day_full_and_an_accepted_guard_run(loaded: Project) -> None:
    assert is_left_out(loaded)
    assert not is_left_out(loaded, full=True)
    assert not is_left_out(loaded, accepted=Accepted(frozenset({("c", "age")})))
    assert is_left_out(loaded)
    assert not is_left_out(loaded, run_date=date(2026, 11, 29))
    assert not is_left_out(loaded), "the day before"
    assert is_left_out(loaded)
    loaded.script("silver/a.sql", "SELECT 1;")
    loaded.registry = {"a": {"transform": ["silver/a.sql"]}}
    assert not is_left_out(loaded) and is_left_out(loaded) and not is_left_out(loaded, full=True)


def test_after_a_failure_and_while_something_warns_a_run_is_not_left_out(loaded: Project) -> None:
    loaded.script("checks/never.sql", "SELECT 1 AS one;")
    loaded.registry["c"]["checks"] = ["checks/never.sql"]
    for _ in range(2):
        assert run(loaded).exit_code == 1 and "check failed: 1 row" in loaded.output
    loaded.registry["c"]["checks"] = [{"script": "checks/never.sql", "on_failure": "warn"}]
    for _ in range(3):
        assert not is_left_out(loaded) and "This check only warns" in loaded.output
    loaded.registry["c"]["checks"] = []
    assert not is_left_out(loaded) and is_left_out(loaded)
    loaded.keboola.faults.add(Fault("table", "status", status=404))
    assert run(loaded).exit_code == 1
    assert not is_left_out(loaded) and is_left_out(loaded)


def test_a_lock_that_somebody_holds_does_not_hold_up_the_look_at_the_tables(loaded: Project) -> None:
    holder = loaded.database.connect()
    holder.autocommit = False
    execute(holder, 'LOCK TABLE silver.a, gold."both", bronze.c IN ACCESS EXCLUSIVE MODE')
    assert is_left_out(loaded)
    holder.rollback()


def test_status_and_the_command_line_know_of_it(loaded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in loaded.keboola.store_environment.items():
        monkeypatch.setenv(name, value)
    address = dict(loaded.connect_args)
    settings = replace(loaded.settings, postgres=Postgres(**address | {"port": int(address["port"])}))
    exported(loaded)
    for typed, expected in (["--date", f"{DAY}"], []), (["--date", f"{DAY}", "--full"], ["a", "b", "c"]):
        assert run_jobs(run_parser().parse_args([*typed, "--quiet"]), [], settings) == 0
        assert exported(loaded) == expected
    assert is_left_out(loaded)
    stream = io.StringIO()
    status(settings, Console(out=stream), runs=3)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert [line[0] for line in lines if "unchanged" in line and "done" in line] == ["4", "2"]


# ---- how PostgreSQL counts ------------------------------------------------------------------------------------------


@pytest.fixture
def counted(database_on_each: EmptyDatabase) -> Iterator[Connection]:
    """Schema elt, a plain and a partitioned table with a row each, and a view of both."""
    connection = database_on_each.connect()
    install(connection)
    execute(
        connection,
        "CREATE TABLE bronze.t (id int, v text); INSERT INTO bronze.t VALUES (1, 'x');"
        "CREATE TABLE bronze.p (id int, v text) PARTITION BY LIST (id);"
        "CREATE TABLE bronze.p1 PARTITION OF bronze.p FOR VALUES IN (1);"
        "CREATE TABLE bronze.p2 PARTITION OF bronze.p DEFAULT; INSERT INTO bronze.p VALUES (1, 'x');"
        "CREATE VIEW gold.all AS SELECT id FROM bronze.t UNION ALL SELECT id FROM bronze.p",
    )
    yield connection


NAMED = Named(frozenset({"bronze.t", "bronze.p", "gold.all", "bronze.new"}))


def test_the_states_that_a_transaction_foretells_are_those_that_others_find(
    counted: Connection, database_on_each: EmptyDatabase
) -> None:
    """With rows of an earlier transaction that PostgreSQL has not counted yet, savepoints and a new table."""
    other = database_on_each.connect()
    for _ in range(5):  # a session reports once a second, unless it is told to
        with transaction(counted):
            recorder = StateRecorder(counted, NAMED)
            execute(counted, "SAVEPOINT s; DELETE FROM bronze.t; INSERT INTO bronze.p VALUES (3, 'x')")
            execute(counted, "ROLLBACK TO SAVEPOINT s; UPDATE bronze.t SET v = 'y'; UPDATE bronze.p SET id = id + 1")
            execute(counted, "CREATE TABLE IF NOT EXISTS bronze.new (x int); INSERT INTO bronze.new VALUES (1)")
            recorder.record(1, {"bronze.t": "t"}, (), whole=True)
        assert read_states(other, NAMED) == stored_states(other)


CHANGES = [
    "INSERT INTO bronze.p VALUES (2, 'x'), (7, 'x')",
    "BEGIN; UPDATE bronze.p SET v = 'z'; ROLLBACK",
    "DELETE FROM bronze.p1",
    "DELETE FROM bronze.p2",
    "TRUNCATE bronze.p2",
    "VACUUM FULL bronze.p1",
    "ALTER TABLE bronze.p DETACH PARTITION bronze.p2",
    "SELECT pg_stat_reset()",
    "SELECT pg_stat_reset_single_table_counters('bronze.p1'::regclass)",
    "ALTER TABLE bronze.p RENAME v TO w",
]


def test_each_change_of_a_partitioned_table_moves_its_state_and_that_of_a_view(counted: Connection) -> None:
    for change in CHANGES:
        before = settled(counted)
        for statement in change.split("; "):
            execute(counted, statement)
        after = settled(counted)
        assert after["bronze.p"] != before["bronze.p"] and after["gold.all"] != before["gold.all"], change
        assert change.startswith("SELECT") or after["bronze.t"] == before["bronze.t"]
        for statement in ("VACUUM", "ANALYZE", "CHECKPOINT"):
            execute(counted, statement)
        assert settled(counted) == after


def settled(connection: Connection) -> dict[str, str]:
    execute(connection, "SELECT pg_stat_force_next_flush()")
    return read_states(connection, NAMED)


def test_while_nothing_is_counted_no_state_equals_another(counted: Connection) -> None:
    execute(counted, "SET track_counts = off")
    assert read_states(counted, NAMED)["bronze.t"] != read_states(counted, NAMED)["bronze.t"]


def test_scripts_name_tables_in_any_way() -> None:
    texts = ["SELECT * FROM Erp.Rates", 'FROM "erp"."rates"', "SELECT 'it''s \"'; -- erp.rates", "$$ erp.rates $$"]
    for text in texts:
        job = Job("a", transform=(Script("silver/a.sql", "silver", Path("a"), text),))
        assert {"erp", "rates"} <= Named.by_jobs([job], "public").words


# ---- any sequence of events -----------------------------------------------------------------------------------------


EVENTS: list[Callable[[Project, random.Random], object]] = [
    lambda project, dice: None,
    lambda project, dice: both(project, f"day {dice.random()}"),
    lambda project, dice: project.put("c", [(str(n), f"{dice.random()}") for n in range(dice.randrange(8, 13))]),
    lambda project, dice: edit(project, f"UPDATE bronze.{dice.choice('abc')} SET v = 'mine' WHERE id = '1'"),
    lambda project, dice: edit(project, f"DELETE FROM bronze.{dice.choice('abc')} WHERE id < '3'"),
    lambda project, dice: edit(project, f"UPDATE silver.{dice.choice('abc')} SET v = 'mine'"),
    lambda project, dice: edit(project, f"VACUUM {dice.choice(['', 'FULL '])}bronze.{dice.choice('abc')}"),
    lambda project, dice: edit(project, f"TRUNCATE {dice.choice(['bronze', 'silver'])}.{dice.choice('abc')}"),
    lambda project, dice: edit(project, "SELECT pg_stat_reset()"),
    lambda project, dice: edit(project, "SELECT pg_stat_reset_single_table_counters('bronze.a'::regclass)"),
    lambda project, dice: run(project, dice.choice("abc")),
    lambda project, dice: (project.script("checks/same.sql", "SELECT 1;"), run(project), mended(project)),
    lambda project, dice: project.keboola.faults.add(Fault("slice", "corrupt", at=-6)),
    lambda project, dice: project.keboola.faults.add(Fault("file", do=lambda: both(project, f"late {dice.random()}"))),
    lambda project, dice: project.script("silver/c.sql", f"{loaded_text(project, 'silver/c.sql')}-- {dice.random()}\n"),
]


def both(project: Project, day: str) -> None:
    for name in ("a", "b"):
        project.put(name, [(str(number), day) for number in range(1, 11)])


def mended(project: Project) -> None:
    project.script("checks/same.sql", "SELECT id FROM gold.both WHERE a IS DISTINCT FROM b;")


def play(project: Project, seed: int, steps: int) -> None:
    """Random events, and after each a run. A run that succeeds leaves what a run with --full would leave."""
    dice = random.Random(seed)
    accepted = Accepted(frozenset((name, guard) for name in "abc" for guard in ("shrink", "empty", "growth")))
    left_out = 0
    for step in range(steps):
        event = dice.choice(EVENTS)
        event(project, dice)
        result = run(project)
        if result.exit_code:  # a fault, or a guard: bronze is what it was, so the next run must heal it
            project.keboola.faults.clear()
            if run(project).exit_code:
                assert run(project, accepted=accepted).exit_code == 0, project.output
        left_out += "unchanged since" in project.output
        for name in ("a", "b", "c"):
            rows = sorted(map(tuple, project.keboola._api.tables[f"in.c-main.{name}"].rows()))
            assert sorted(project.rows(f"bronze.{name}")) == rows, (seed, step, project.output)
            assert project.rows(f"silver.{name}") == sorted((int(number), v) for number, v in rows), (seed, step)
        project.keboola.faults.clear()
    assert left_out, "not one export was left out"


def test_after_any_events_bronze_and_silver_are_what_a_full_run_would_make(loaded: Project) -> None:
    play(loaded, seed=19, steps=16)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_after_any_events_bronze_and_silver_are_what_a_full_run_would_make_again_and_again(
    loaded: Project, seed: int
) -> None:
    play(loaded, seed, steps=25)
