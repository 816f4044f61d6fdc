"""Schema elt: installed once, upgraded without loss, commented for psql. It records runs, jobs and definitions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import psycopg2
import pytest

from lib.config.jobs import Script
from lib.elt_schema import installation
from lib.elt_schema.installation import install
from lib.errors import DatabaseError
from lib.postgres.connection import Connection, execute, query
from lib.postgres.run_lock import take_run_lock
from lib.postgres.transaction import TransactionSettings, transaction
from lib.run import history
from lib.run.definitions import not_applied, record_definition
from lib.run.history import JobRecord
from lib.transform.scripts import ScriptResult
from tests.support.databases import EmptyDatabase, connected
from tests.support.roles import Role

DAY = date(2026, 1, 31)
RELATIONS = {"runs", "job_runs", "script_runs", "slices", "definitions", "table_states", "changes"} | {
    "recent_runs", "job_status", "row_changes"
}  # fmt: skip


@pytest.fixture
def installed(database: EmptyDatabase) -> Connection:
    """A connection to a database with schema elt."""
    connection = database.connect()
    install(connection)
    return connection


# ---- installing -----------------------------------------------------------------------------------------------------


def test_an_empty_database_gets_every_schema_and_table(database_on_each: EmptyDatabase) -> None:
    install(database_on_each.connect())
    found = database_on_each.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'elt'::regnamespace AND relkind <> 'i'"
    )
    assert {name for (name,) in found} >= RELATIONS
    schemas = database_on_each.sql("SELECT nspname FROM pg_namespace")
    assert set(installation.SCHEMAS) <= {name for (name,) in schemas}


def test_everything_in_schema_elt_says_what_it_is(installed: Connection) -> None:
    silent = query(
        installed,
        """
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'elt'::regnamespace AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT attrelid::regclass || '.' || attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'elt'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
          AND col_description(attrelid, attnum) IS NULL
        UNION ALL
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'elt'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
        """,
    )
    assert silent == []


def test_a_second_installation_takes_no_lock_and_changes_nothing(
    installed: Connection, database: EmptyDatabase
) -> None:
    state = """
        SELECT array_agg(oid || ' ' || xmin ORDER BY oid) FROM pg_class WHERE relnamespace = 'elt'::regnamespace
        UNION ALL SELECT array_agg(oid || ' ' || xmin ORDER BY oid) FROM pg_proc
            WHERE pronamespace = 'elt'::regnamespace
        UNION ALL SELECT array_agg(objoid || ' ' || xmin ORDER BY objoid, objsubid) FROM pg_description
    """
    before = query(installed, state)
    second = database.connect()
    second.autocommit = False
    install(second)
    locks = query(
        second,
        "SELECT relation::regclass::text, mode FROM pg_locks"
        " WHERE pid = pg_backend_pid() AND mode <> 'AccessShareLock'",
    )
    assert [lock for lock in locks if lock[0] is not None] == []
    second.commit()
    assert query(installed, state) == before


def test_a_newer_version_is_installed_over_the_rows_of_an_older_one(
    installed: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = history.begin_run(installed, ["a"], "old", DAY)
    history.record_jobs(installed, run_id, [JobRecord("a", "published", rows_loaded=3)])
    colleague = "CREATE VIEW public.of_a_colleague AS SELECT rows_loaded FROM elt.job_status"
    execute(installed, colleague)
    shutil.copytree(installation.FOLDER, tmp_path / "elt")
    (tmp_path / "elt" / "zz.sql").write_text("CREATE VIEW elt.newer AS SELECT 1 AS one;")
    monkeypatch.setattr(installation, "FOLDER", tmp_path / "elt")
    install(installed)
    assert query(installed, "SELECT one FROM elt.newer") == [(1,)]
    assert query(installed, "TABLE public.of_a_colleague") == [(3,)]
    assert query(installed, "SELECT run_id, jobs FROM elt.runs") == [(run_id, ["a"])]
    install(installed)  # CREATE VIEW would fail a second time


def test_a_version_that_fails_leaves_the_older_one_whole(
    installed: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(installation.FOLDER, tmp_path / "elt")
    (tmp_path / "elt" / "a.sql").write_text("CREATE VIEW elt.newer AS SELECT 1 AS one;")
    (tmp_path / "elt" / "zz.sql").write_text("SELECT oops;")
    monkeypatch.setattr(installation, "FOLDER", tmp_path / "elt")
    for _ in range(2):
        with pytest.raises(DatabaseError, match='^cannot install schema elt: column "oops" does not exist'):
            install(installed)
    assert query(installed, "SELECT to_regclass('elt.newer')") == [(None,)]


# ---- rights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_role(database: EmptyDatabase) -> Iterator[Connection]:
    """A connection of a role that has no rights, and a name that needs quotes."""
    database.sql('CREATE ROLE "plain elt" LOGIN')
    connection = connected(database.connect_args | {"user": "plain elt"})
    yield connection
    connection.close()
    database.sql('DROP OWNED BY "plain elt" CASCADE')
    database.sql('DROP ROLE "plain elt"')


def refused(connection: Connection) -> list[str]:
    """The statements that an administrator should run, as a refused installation prints them."""
    with pytest.raises(DatabaseError) as caught:
        install(connection)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("the role lacks rights that every run needs") and "check --online" in first
    return [line.strip() for line in lines]


def test_a_role_that_may_not_create_schemas_is_told_what_to_run_and_it_helps(
    database: EmptyDatabase, plain_role: Connection
) -> None:
    asked = refused(plain_role)
    assert asked[0] == 'CREATE SCHEMA elt AUTHORIZATION "plain elt";'
    assert len(asked) == len(installation.SCHEMAS)
    assert database.sql("SELECT to_regnamespace('elt')") == [(None,)]
    for statement in asked:
        database.sql(statement)
    install(plain_role)
    install(plain_role)


def test_schemas_that_an_administrator_made_and_keeps_are_enough(
    database: EmptyDatabase, plain_role: Connection
) -> None:
    for schema in installation.SCHEMAS:
        database.sql(f"CREATE SCHEMA {schema}")
    database.sql('GRANT USAGE ON SCHEMA gold TO "plain elt"')
    asked = refused(plain_role)
    assert asked[-1] == 'GRANT USAGE, CREATE ON SCHEMA gold TO "plain elt";'
    assert len(asked) == len(installation.SCHEMAS)
    for statement in asked:
        database.sql(statement)
    install(plain_role)
    install(plain_role)
    history.begin_run(plain_role, ["a"], "plain", DAY)


def test_a_role_without_temporary_tables_is_told_so(database: EmptyDatabase, plain_role: Connection) -> None:
    database.sql(f"REVOKE TEMPORARY ON DATABASE {database.name} FROM PUBLIC")
    database.sql(f'GRANT CREATE ON DATABASE {database.name} TO "plain elt"')
    assert refused(plain_role) == [f'GRANT TEMPORARY ON DATABASE {database.name} TO "plain elt";']
    database.sql(f'GRANT TEMPORARY ON DATABASE {database.name} TO "plain elt"')
    install(plain_role)


def test_a_role_that_did_not_install_the_schema_is_told_what_makes_it_its_own_and_it_helps(
    database: EmptyDatabase, plain_role: Connection
) -> None:
    owner = database.connect()
    execute(owner, 'CREATE ROLE "who was first"')
    execute(owner, f'GRANT CREATE ON DATABASE {database.name} TO "who was first"')
    execute(owner, 'SET ROLE "who was first"')
    install(owner)
    execute(owner, "RESET ROLE")
    for schema in installation.SCHEMAS:
        database.sql(f'GRANT USAGE, CREATE ON SCHEMA {schema} TO "plain elt"')
    try:
        asked = refused(plain_role)
        assert asked[0] == 'ALTER SCHEMA elt OWNER TO "plain elt";  -- belongs to who was first.'
        assert "GRANT" not in " ".join(asked)
        for statement in asked:
            database.sql(statement)
        install(plain_role)
        history.begin_run(plain_role, ["a"], "plain", DAY)
    finally:
        execute(owner, 'DROP OWNED BY "who was first" CASCADE')
        execute(owner, 'DROP ROLE "who was first"')


STATE_OF_ELT = """
    SELECT relname, attname, format_type(atttypid, NULL), attidentity
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = 'elt'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), ''
    FROM pg_constraint WHERE connamespace = 'elt'::regnamespace
    UNION ALL SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid), ''
    FROM pg_proc WHERE pronamespace = 'elt'::regnamespace
    UNION ALL SELECT 'view', relname, pg_get_viewdef(oid), ''
    FROM pg_class WHERE relnamespace = 'elt'::regnamespace AND relkind = 'v'
    ORDER BY 1, 2, 3
"""
DAMAGES = [
    "DROP TABLE elt.runs, elt.job_runs CASCADE",
    "DROP TABLE elt.runs CASCADE",
    "DROP FUNCTION elt.to_text",
    "DROP VIEW elt.recent_runs",
    "DROP TABLE elt.definitions",
    "DROP TABLE elt.script_runs",
    "DROP TABLE elt.changes CASCADE",
    "DROP VIEW elt.row_changes",
    "ALTER TABLE elt.changes DROP CONSTRAINT changes_pkey",
    "CREATE OR REPLACE FUNCTION elt.to_text(value text) RETURNS text LANGUAGE sql RETURN 'x'",
    "CREATE OR REPLACE FUNCTION elt._refuse_triggers(tables regclass[]) RETURNS void LANGUAGE sql AS 'SELECT'",
    "CREATE OR REPLACE VIEW elt.job_status AS SELECT job, status, recorded_at AS published_at, rows_loaded,"
    " stage_seconds, publish_seconds, run_id, error, source_imported_at, is_unchanged FROM elt.job_runs",
    "ALTER TABLE elt.runs DROP CONSTRAINT runs_pkey CASCADE",
    "ALTER TABLE elt.script_runs DROP CONSTRAINT script_runs_pkey",
    "ALTER TABLE elt.runs ALTER COLUMN run_id DROP IDENTITY",
    "ALTER SEQUENCE elt.runs_run_id_seq RESTART",
]


def test_what_is_missing_or_damaged_in_the_schema_is_repaired_and_the_history_kept(installed: Connection) -> None:
    columns = query(
        installed,
        "SELECT format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname)"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'elt'::regnamespace"
        " AND relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attname NOT IN"
        " ('run_id', 'job', 'script', 'number', 'relation')",
    )
    whole = query(installed, STATE_OF_ELT)
    for number, damage in enumerate([*DAMAGES, *(drop for (drop,) in columns)], 1):
        run_id = history.begin_run(installed, ["a"], "pid 1", DAY)
        assert run_id == number, damage
        scripts = (ScriptResult("silver/a.sql", 1.0, (1, 2, 3, 4)),)
        history.record_jobs(installed, run_id, [JobRecord("a", "published", 5, scripts=scripts)])
        execute(installed, damage)
        install(installed)
        assert query(installed, STATE_OF_ELT) == whole, damage
        ((runs, newest),) = query(installed, "SELECT count(*), max(run_id) FROM elt.recent_runs")
        assert (runs, newest) == (number, number), damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "DROP TABLE elt.definitions; CREATE VIEW elt.definitions AS SELECT 1 AS one",
            "elt.definitions is a view, but the pipeline needs a table of this name."
            " Rename it: ALTER TABLE elt.definitions RENAME TO definitions_old;",
        ),
        (
            "DROP VIEW elt.job_status; CREATE MATERIALIZED VIEW elt.job_status AS SELECT 1 AS one",
            "ALTER TABLE elt.job_status RENAME TO job_status_old;",
        ),
        (
            "DROP VIEW elt.job_status; CREATE VIEW elt.job_status AS SELECT 1 AS one",
            "ALTER SCHEMA elt RENAME TO elt_old;",
        ),
        (
            "DROP FUNCTION elt.to_text; CREATE FUNCTION elt.to_text(text) RETURNS int LANGUAGE sql RETURN 1",
            "ALTER SCHEMA elt RENAME TO elt_old;",
        ),
        (
            "ALTER TABLE elt.job_runs DROP COLUMN job CASCADE",
            "ALTER SCHEMA elt RENAME TO elt_old;",
        ),
        (
            "ALTER TABLE elt.runs DROP CONSTRAINT runs_pkey CASCADE; INSERT INTO elt.runs OVERRIDING SYSTEM VALUE"
            " SELECT * FROM elt.runs",
            "ALTER SCHEMA elt RENAME TO elt_old;",
        ),
    ],
)
def test_what_cannot_be_repaired_is_named_with_the_command_that_helps(
    installed: Connection, damage: str, said: str
) -> None:
    history.begin_run(installed, ["a"], "pid 1", DAY)
    execute(installed, damage)
    with pytest.raises(DatabaseError) as caught:
        install(installed)
    assert said in str(caught.value)
    execute(installed, said[said.index("ALTER") :])
    install(installed)
    history.begin_run(installed, ["a"], "pid 1", DAY)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_that_never_ended_is_called_lost_by_the_next_one(installed: Connection) -> None:
    lost, done = (history.begin_run(installed, ["a", "b"], "pid 1 on host", DAY) for _ in range(2))
    history.end_run(installed, done, "done")
    third = history.begin_run(installed, ["a"], "pid 2 on host", DAY)
    assert query(installed, "SELECT run_id, status, finished_at IS NULL, error FROM elt.runs ORDER BY run_id") == [
        (lost, "lost", False, "the process ended before it recorded a result"),
        (done, "done", False, None),
        (third, "running", True, None),
    ]
    assert query(installed, "SELECT jobs, process, run_date FROM elt.runs WHERE run_id = %s", (lost,)) == [
        (["a", "b"], "pid 1 on host", DAY)
    ]


def test_a_run_is_running_only_while_a_session_holds_the_run_lock(installed: Connection, elt: Role) -> None:
    begun = history.begin_run(installed, ["a"], "pid 1", DAY)
    shown = "SELECT run_id, status FROM elt.recent_runs"
    assert query(installed, shown) == [(begun, "lost")]
    opened = connected(elt.connect_args)  # every role sees every session's locks
    take_run_lock(opened)
    assert query(installed, shown) == [(begun, "running")]
    opened.close()
    history.end_run(installed, begun, "done")
    assert query(installed, shown) == [(begun, "done")]


def test_the_error_of_a_run_is_the_one_that_came_first(installed: Connection) -> None:
    run_id = history.begin_run(installed, ["a", "b"], "pid 1", DAY)
    for job in ("z", "a"):
        history.record_jobs(installed, run_id, [JobRecord(job, "failed", error=f"{job} failed")])
    assert query(installed, "SELECT error FROM elt.recent_runs") == [("z failed",)]


def test_what_a_run_did_is_there_in_full(installed: Connection) -> None:
    run_id = history.begin_run(installed, ["a", "b", "c"], "pid 1", DAY)
    history.name_source(installed, run_id, "Keboola project 'x'")
    scripts = (
        ScriptResult("silver/a.sql", 1.23456, (1, 2, 3, 4)),
        ScriptResult("bronze/a.sql", 0.1),
        ScriptResult("checks/a.sql", 0.2, broken_by=7),
    )
    published = JobRecord("a", "published", 100, 90, "version", ("shrink",), 1.5, 2.25, scripts=scripts)
    history.record_jobs(
        installed,
        run_id,
        [published, JobRecord("b", "failed", error="100 % wrong\nin 2 lines"), JobRecord("c", "held back", error="b")],
    )
    history.end_run(installed, run_id, "failed")
    assert query(installed, "SELECT * FROM elt.script_runs ORDER BY script") == [
        (run_id, "a", "bronze/a.sql", Decimal("0.1"), None, None, None, None, None),
        (run_id, "a", "checks/a.sql", Decimal("0.2"), None, None, None, None, 7),
        (run_id, "a", "silver/a.sql", Decimal("1.235"), 1, 2, 3, 4, None),
    ]
    recorded = "SELECT rows_loaded, rows_before, source_version, accepted_shrink, stage_seconds, publish_seconds"
    assert query(installed, f"{recorded} FROM elt.job_runs WHERE job = 'a'") == [(100, 90, "version", True, 1.5, 2.25)]
    seen = "SELECT status, jobs_published, jobs_not_published, rows_loaded, error FROM elt.recent_runs"
    assert query(installed, seen) == [("failed", 1, 2, 100, "100 % wrong\nin 2 lines")]
    assert query(installed, "SELECT source FROM elt.runs") == [("Keboola project 'x'",)]


def test_the_status_of_a_job_keeps_its_last_success(installed: Connection) -> None:
    for status, rows, error in (("published", 5, None), ("failed", None, "oops")):
        run_id = history.begin_run(installed, ["a"], "pid 1", DAY)
        history.record_jobs(
            installed, run_id, [JobRecord("a", status, rows, source_version=rows and "v1", error=error)]
        )
        history.end_run(installed, run_id, "done")
    ((job, status, rows, latest, error, published_at),) = query(
        installed, "SELECT job, status, rows_loaded, run_id, error, published_at IS NOT NULL FROM elt.job_status"
    )
    assert (job, status, rows, latest, error, published_at) == ("a", "failed", 5, run_id, "oops", True)
    assert history.last_loads(installed) == {"a": history.LastLoad("v1", frozenset(), 1, None)}


def test_a_run_that_does_not_load_a_job_keeps_the_rows_of_its_last_load(installed: Connection) -> None:
    for rows, imported in ((5, datetime(2026, 1, 30, 5, tzinfo=UTC)), (None, None)):
        run_id = history.begin_run(installed, ["a"], "pid 1", DAY)
        record = JobRecord("a", "published", rows, stage_seconds=rows and 2.5, source_imported_at=imported)
        history.record_jobs(installed, run_id, [record])
    shown = "SELECT run_id, rows_loaded, stage_seconds, source_imported_at FROM elt.job_status"
    assert query(installed, shown) == [(run_id, 5, 2.5, datetime(2026, 1, 30, 5, tzinfo=UTC))]
    ((published_at, recorded_at),) = query(
        installed, "SELECT published_at, max(recorded_at) FROM elt.job_status, elt.job_runs GROUP BY 1"
    )
    assert published_at == recorded_at


def test_whatever_a_source_says_can_be_recorded(installed: Connection) -> None:
    said = "NUL \0, half a pair \ud83d, whole 😀, 100 %s"
    run_id = history.begin_run(installed, ["a"], "pid 1", DAY)
    history.name_source(installed, run_id, said)
    history.record_jobs(installed, run_id, [JobRecord("a", "failed", error=said)])
    history.end_run(installed, run_id, "failed", said)
    recorded = "NUL \\0, half a pair \\ud83d, whole 😀, 100 %s"
    query_all = "SELECT source, runs.error, job_runs.error FROM elt.runs JOIN elt.job_runs USING (run_id)"
    assert query(installed, query_all) == [(recorded, recorded, recorded)]


def test_an_unknown_status_is_refused_by_the_database(installed: Connection) -> None:
    run_id = history.begin_run(installed, ["a"], "pid 1", DAY)
    with pytest.raises(psycopg2.errors.CheckViolation):
        history.record_jobs(installed, run_id, [JobRecord("a", "well")])
    with pytest.raises(psycopg2.errors.CheckViolation):
        history.end_run(installed, run_id, "well")


# ---- definitions ----------------------------------------------------------------------------------------------------

VIEW = Script("gold/x.sql", "gold", Path("gold/x.sql"), "CREATE OR REPLACE VIEW gold.x AS SELECT 1 AS one;")
TABLE = Script("bronze/x.sql", "bronze", Path("bronze/x.sql"), "CREATE TABLE IF NOT EXISTS bronze.x (v text);")


def apply(connection: Connection, script: Script) -> None:
    with transaction(connection, TransactionSettings(2)):
        execute(connection, script.text)
        record_definition(connection, 1, script)


def is_applied(connection: Connection, script: Script) -> bool:
    return not_applied(connection, [script]) == []


@pytest.mark.parametrize("script", [VIEW, TABLE], ids=lambda script: script.layer)
def test_a_definition_is_applied_once_it_is_recorded_with_this_very_text(installed: Connection, script: Script) -> None:
    assert not is_applied(installed, script)
    apply(installed, script)
    assert is_applied(installed, script)
    changed = replace(script, text=script.text + " ")
    assert not is_applied(installed, changed)
    apply(installed, changed)
    assert is_applied(installed, changed) and not is_applied(installed, script)
    assert not is_applied(installed, replace(script, path=script.path.replace("x", "y")))


def test_a_view_or_table_that_was_dropped_is_not_applied(installed: Connection) -> None:
    for script in (VIEW, TABLE):
        apply(installed, script)
        execute(installed, f"DROP {'VIEW' if script is VIEW else 'TABLE'} {script.relation}")
        assert not is_applied(installed, script)


def test_a_view_that_was_replaced_by_hand_is_not_applied(installed: Connection) -> None:
    apply(installed, VIEW)
    execute(installed, "CREATE OR REPLACE VIEW gold.x AS SELECT 2 AS one")
    assert not is_applied(installed, VIEW)
    execute(installed, "CREATE OR REPLACE VIEW gold.x AS SELECT 1 AS one")
    assert is_applied(installed, VIEW)


def test_a_view_that_became_a_table_is_not_applied(installed: Connection) -> None:
    apply(installed, VIEW)
    execute(installed, "DROP VIEW gold.x; CREATE TABLE gold.x (one int)")
    assert not is_applied(installed, VIEW)


def test_a_materialized_view_counts_as_a_view(installed: Connection) -> None:
    script = replace(VIEW, text="CREATE MATERIALIZED VIEW gold.x AS SELECT 1 AS one;")
    apply(installed, script)
    assert is_applied(installed, script)
    execute(installed, "DROP MATERIALIZED VIEW gold.x; CREATE MATERIALIZED VIEW gold.x AS SELECT 2 AS one")
    assert not is_applied(installed, script)


def test_a_definition_that_was_rolled_back_is_not_recorded(installed: Connection) -> None:
    with pytest.raises(ZeroDivisionError), transaction(installed, TransactionSettings(2)):
        execute(installed, VIEW.text)
        record_definition(installed, 1, VIEW)
        raise ZeroDivisionError
    assert not is_applied(installed, VIEW)
