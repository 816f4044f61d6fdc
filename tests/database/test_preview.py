"""A preview shows exactly what a run then changes, and changes nothing itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from lib.run import view_rows
from lib.run.flow import counting_from
from lib.run.history import first_published
from lib.run.read_changes import RowChange, TableChanges, read_changes
from lib.run.view_rows import ViewRows
from sandbox.faults import Fault
from tests.support.databases import EmptyDatabase, sql
from tests.support.project import Project, assert_it_is_still_monday, newest_run
from tests.support.project_process import PATIENCE, ProjectProcess, await_rows
from tests.support.roles import Role

GOLD = ('gold."both"', "gold.of_c")
OF_C = "CREATE OR REPLACE VIEW gold.of_c AS SELECT v, count(*) AS rows FROM silver.c GROUP BY v;"

#: everything in the catalog that people or a preview could have made, and all rows that readers see
EVERYTHING = """
    SELECT 'relation ' || concat_ws(' ', oid, relnamespace::regnamespace, relname, relkind, relfilenode, relacl,
        reloptions, pg_get_viewdef(oid), obj_description(oid), reltuples)
    FROM pg_class
    WHERE oid >= 16384 AND relnamespace::regnamespace::text !~ '^(pg_|elt)'
    UNION ALL
    SELECT concat_ws(' ', 'column', attrelid, attnum, attname, atttypid, attacl, attidentity)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE pg_class.oid >= 16384 AND relnamespace::regnamespace::text !~ '^(pg_|elt)'
    UNION ALL SELECT concat_ws(' ', 'schema', oid, nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT concat_ws(' ', 'function', oid, proname, pronamespace) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'type', oid, typname, typnamespace) FROM pg_type
        WHERE oid >= 16384 AND typnamespace::regnamespace::text !~ '^(pg_|elt)'
    UNION ALL SELECT concat_ws(' ', 'default', oid, defaclnamespace, defaclacl) FROM pg_default_acl
    UNION ALL SELECT concat_ws(' ', 'publication', pg_publication_rel::text) FROM pg_publication_rel
    UNION ALL SELECT concat_ws(' ', 'publication', pg_publication_namespace::text) FROM pg_publication_namespace
    UNION ALL SELECT concat_ws(' ', 'trigger', pg_trigger::text) FROM pg_trigger WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'kept', relname) FROM pg_class
        WHERE relnamespace = 'elt_changes'::regnamespace
    UNION ALL SELECT 'history ' || job_runs::text FROM elt.job_runs
    UNION ALL SELECT 'history ' || script_runs::text FROM elt.script_runs
    UNION ALL SELECT 'history ' || slices::text FROM elt.slices
    UNION ALL SELECT 'history ' || definitions::text FROM elt.definitions
    UNION ALL SELECT 'history ' || changes::text FROM elt.changes
    UNION ALL SELECT 'runs ' || recent_runs::text FROM elt.recent_runs
    ORDER BY 1
"""


def everything(project: Project) -> list[tuple]:
    tables = [f"{layer}.{name}" for layer in ("bronze", "silver") for name in ("a", "b", "c")]
    return project.database.sql(EVERYTHING) + [project.rows(table) for table in (*tables, 'gold."both"')]


def counts(tables: list[TableChanges]) -> dict[str, tuple]:
    """What changed in each table, without order."""
    return {each.relation: (each.inserted, each.updated, each.deleted, sorted(map(repr, each.rows))) for each in tables}


def of_the_load(project: Project, run_id: int) -> dict[str, tuple]:
    with closing(project.database.connect()) as connection:
        return counts(read_changes(connection, run_id, limit=100))


def rows_of_gold(project: Project) -> dict[str, Counter]:
    """The rows of each gold view that is there, as texts by column."""
    found = {}
    for view in GOLD:
        if project.database.sql("SELECT to_regclass(%s)", view) != [(None,)]:
            found[view] = Counter(
                tuple(sorted(row.items()))
                for (row,) in project.database.sql(f"SELECT to_jsonb(seen) FROM {view} AS seen")
            )
    return found


def applied(before: Counter, changes: TableChanges | None) -> Counter:
    """Rows of a view after changes that a preview showed, all of them."""
    after = Counter(before)
    for change in changes.rows if changes else ():
        if change.before is not None:
            after[tuple(sorted(change.before.items()))] -= 1
        if change.after is not None:
            after[tuple(sorted(change.after.items()))] += 1
    return +after


def nothing(project: Project) -> None:
    """Only the rows of the day change."""


def changed_view(project: Project) -> None:
    project.edit("gold/both.sql", "b.v AS b FROM", "upper(b.v) AS b, length(a.v) AS long FROM")
    project.edit("checks/same.sql", "a IS DISTINCT FROM b", "upper(a) IS DISTINCT FROM b")


def new_view(project: Project) -> None:
    project.script("gold/of_c.sql", OF_C)
    project.registry["c"]["transform"].append("gold/of_c.sql")


def new_columns(project: Project) -> None:
    project.edit("bronze/a.sql", "COMMENT", "SELECT elt.add_column('bronze.a', 'w', 'text');\nCOMMENT")
    project.edit("silver/a.sql", "DROP", "SELECT elt.add_column('silver.a', 'w', 'text');\nDROP")
    project.edit("silver/a.sql", "v FROM", "v, w FROM")
    project.edit("gold/both.sql", "b.v AS b FROM", "b.v AS b, a.w FROM")
    project.put("a", [(str(number), "tuesday", f"w{number}") for number in range(1, 11)], ("id", "v", "w"))


def only_some_rows(project: Project) -> None:
    for name in ("a", "b"):
        project.put(name, [(str(number), "monday" if number % 2 else "noon") for number in range(2, 12)])


@pytest.mark.parametrize("change", [nothing, changed_view, new_view, new_columns, only_some_rows])
def test_the_load_changes_exactly_what_was_previewed(monday: Project, change: Callable[[Project], None]) -> None:
    change(monday)
    before, gold = everything(monday), rows_of_gold(monday)
    preview = monday.preview()
    assert monday.result.exit_code == 0, monday.output
    assert everything(monday) == before
    assert monday.database.sql("SELECT FROM pg_tables WHERE schemaname = 'elt_staging'") == []

    result = monday.run()
    assert result.exit_code == 0, monday.output
    loaded = of_the_load(monday, result.run_id)
    if change is new_columns:  # on a copy of bronze all rows are replaced, and only counts are known
        loaded = {name: counted for name, counted in loaded.items() if name.startswith("silver.")}
        preview.tables = [table for table in preview.tables if table.relation.startswith("silver.")]
    assert counts(preview.tables) == loaded
    shown = {view.relation: view.changes for view in preview.views}
    for view, rows in rows_of_gold(monday).items():
        known = rows_of_old_columns(rows, gold.get(view))
        assert applied(gold.get(view, Counter()), shown.get(view)) == known, view
    assert {view.relation for view in preview.views if view.is_new} == set(rows_of_gold(monday)) - set(gold)
    applied_now = monday.database.sql("SELECT script FROM elt.definitions WHERE run_id = %s", result.run_id)
    assert {each.script for each in preview.definitions} == {script for (script,) in applied_now}


def rows_of_old_columns(rows: Counter, before: Counter | None) -> Counter:
    """The rows without columns that are new. They are named, not compared."""
    old = {name for row in before for name, _ in row} if before else None
    found: Counter = Counter()
    for row, count in rows.items():
        found[tuple((name, value) for name, value in row if old is None or name in old)] += count
    return found


def test_columns_and_definitions_are_named_with_those_who_would_wait(monday: Project) -> None:
    new_columns(monday)
    with closing(monday.database.connect()) as reader:
        sql(reader, "BEGIN; SELECT * FROM gold.both LIMIT 1")
        ((backend,),) = sql(reader, "SELECT pg_backend_pid()")
        preview = monday.preview()
    assert [(each.relation, each.column, each.before, each.after) for each in preview.columns] == [
        ("bronze.a", "w", None, "text"),
        ('gold."both"', "w", None, "text"),
        ("silver.a", "w", None, "text"),
    ]
    gold = next(each for each in preview.definitions if each.script == "gold/both.sql")
    assert gold.locks_readers and any(f"(backend {backend})" in user for user in gold.users)
    assert "silver.a.w text is new; readers of silver.a wait" in monday.output
    assert "gold/both.sql: readers of gold.both wait from then until the run ends; now: " in monday.output


# ---- it leaves nothing ----------------------------------------------------------------------------------------------


def test_what_people_have_made_is_as_it_was(monday: Project) -> None:
    role = f"{monday.database.name}_analyst"
    monday.database.sql(f"""
        CREATE ROLE {role};
        GRANT USAGE ON SCHEMA gold TO {role}; GRANT SELECT ON gold."both" TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA silver, gold GRANT SELECT ON TABLES TO {role};
        CREATE VIEW public.of_a_colleague AS SELECT a FROM gold."both";
        CREATE VIEW gold.by_hand AS SELECT a, count(*) FROM gold."both" GROUP BY a;
        CREATE FUNCTION gold.twice(text) RETURNS text LANGUAGE sql AS 'SELECT $1 || $1';
        CREATE DOMAIN gold.word AS text;
        CREATE VIEW gold.twice AS SELECT gold.twice(v)::gold.word AS v FROM silver.c;
        CREATE TABLE gold.notes AS SELECT 1 AS id;
        CREATE TABLE silver.parts (id integer PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE PUBLICATION everybody FOR TABLES IN SCHEMA silver, gold;
        CREATE TABLE public.ddl (tag text);
        CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO public.ddl SELECT tg_tag WHERE tg_tag ~ 'SCHEMA|VIEW'; END $$;
        CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION public.log_ddl();
    """)
    for name in ("a", "b", "c"):
        monday.database.sql(f"ALTER TABLE silver.{name} REPLICA IDENTITY FULL")
    monday.database.sql("VACUUM ANALYZE public.ddl")
    try:
        new_columns(monday)
        before = everything(monday)
        preview = monday.preview()
        assert monday.result.exit_code == 0, monday.output
        assert everything(monday) == before
        assert monday.rows("public.ddl") == []
        changed = {view.relation: view.changes for view in preview.views if view.changes}
        assert changed["gold.by_hand"].rows == (
            RowChange("deleted", {"a": "monday"}, {"a": "monday", "count": 10}, None),
            RowChange("inserted", {"a": "tuesday"}, None, {"a": "tuesday", "count": 10}),
        )
        assert (changed["gold.twice"].inserted, changed["gold.twice"].deleted) == (10, 10)
    finally:
        monday.database.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_preview_is_no_load_for_whoever_asks_the_history(monday: Project) -> None:
    assert monday.run().exit_code == 0
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with closing(monday.database.connect()) as connection:
        asked = [first_published(connection), counting_from(connection, tomorrow)]
        assert monday.preview().tables == []
        assert monday.result.unchanged_since
        monday.edit("silver/c.sql", "id, v FROM", "id, upper(v) AS v FROM")
        assert [table.relation for table in monday.preview().tables] == ["silver.c"]
        assert [first_published(connection), counting_from(connection, tomorrow)] == asked
    monday.edit("silver/c.sql", "id, upper(v) AS v FROM", "id, v FROM")
    monday.edit("silver/c.sql", "DROP", "SELECT elt.add_column('silver.c', 'w', 'text');\nDROP")
    monday.preview()  # begins twice
    monday.edit("silver/c.sql", "SELECT elt.add_column('silver.c', 'w', 'text');\nDROP", "DROP")
    assert monday.run().unchanged_since, monday.output
    kinds = monday.database.sql("SELECT kind, status FROM elt.runs ORDER BY run_id")
    assert kinds == [("run", "done"), ("run", "done"), *[("preview", "done")] * 3, ("run", "done")]
    assert {kind for (kind,) in monday.database.sql("SELECT kind FROM elt.recent_runs")} == {"run"}


def test_the_planner_learns_nothing_from_rows_that_were_rolled_back(monday: Project) -> None:
    monday.put_day("tuesday", 500)
    monday.preview()
    look = "SELECT reltuples::int FROM pg_class WHERE oid IN ('silver.c'::regclass, 'bronze.c'::regclass)"
    assert monday.database.sql(look) == [(10,), (10,)]
    vacuumed = "SELECT last_vacuum, last_analyze FROM pg_stat_user_tables WHERE relid = 'silver.c'::regclass"
    assert None not in monday.database.sql(vacuumed)[0]


# ---- it ends as the run would ---------------------------------------------------------------------------------------


def test_what_would_fail_is_said_with_the_exit_code_of_the_run(monday: Project) -> None:
    monday.put("b", [("1", "wednesday")] * 1 + [(str(number), "tuesday") for number in range(2, 11)])
    monday.preview()
    previewed, said = monday.result, monday.output
    assert previewed.exit_code == 1
    assert "checks/same.sql: check failed: 1 row" in said
    assert newest_run(monday)[0] == "failed" and "both: checks/same.sql" in newest_run(monday)[1]
    assert_it_is_still_monday(monday)
    loaded = monday.run()
    assert loaded.exit_code == 1
    what = lambda result: [(record.job, record.status, record.error) for record in result.records]  # noqa: E731
    assert what(previewed) == what(loaded)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a.v AS a, b.v AS b", "a.v AS a"),  # PostgreSQL drops no column of a view in place
        ("a.v AS a, b.v AS b", "b.v AS b, a.v AS a"),
        ("AS b FROM", "AS b, 1 / 0 AS bad FROM nowhere,"),
    ],
)
def test_a_definition_that_cannot_replace_its_view_fails_as_in_the_run(monday: Project, old: str, new: str) -> None:
    monday.edit("gold/both.sql", old, new)
    monday.preview()
    previewed = [record.error for record in monday.result.records]
    assert monday.result.exit_code == 1
    assert [record.error for record in monday.run().records] == previewed


def test_a_table_where_gold_needs_a_view_fails_as_in_the_run(monday: Project) -> None:
    monday.database.sql('DROP VIEW gold."both"; CREATE TABLE gold."both" (id int)')
    monday.preview()
    assert "is not a view" in str(monday.result.records)
    assert monday.result.exit_code == 1


def test_the_options_of_a_view_are_kept_or_refused_as_in_the_run(monday: Project) -> None:
    monday.database.sql("CREATE VIEW gold.of_c WITH (security_barrier, check_option = local) AS SELECT v FROM silver.c")
    new_view(monday)
    monday.edit("gold/of_c.sql", "v, count(*) AS rows FROM silver.c GROUP BY v", "v FROM silver.c LIMIT 3")
    monday.preview()
    assert "gold.of_c had the option check_option" in str(monday.result.records)


def test_a_role_without_the_rights_is_told_what_to_type(project: Project, elt: Role) -> None:
    project.connect_args["user"] = elt.name
    project.put_day("monday")
    assert project.run().exit_code == 0, project.output
    elt.database.sql(f"REVOKE CREATE ON DATABASE {elt.database.name} FROM {elt.name}")
    project.put_day("tuesday")
    project.preview()
    assert project.result.exit_code == 0, project.output  # no definition changed, so no schema is made
    changed_view(project)
    project.preview()
    assert project.result.exit_code == 1
    assert f"GRANT CREATE ON DATABASE {elt.database.name} TO {elt.name};" in str(project.result.error)


# ---- a preview never costs a morning --------------------------------------------------------------------------------


def stuck_in_a_preview(project: Project) -> None:
    """Let script silver/c.sql wait for a minute, in a preview only."""
    script = (project.root / "sql_scripts" / "silver/c.sql").read_text()
    wait = "DO $$ BEGIN IF current_setting('elt.is_preview') = 'on' THEN PERFORM pg_sleep(60); END IF; END $$;"
    project.script("silver/c.sql", script + wait)


IN_THE_WAIT = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


def test_a_load_ends_a_preview_and_goes_on(monday: Project) -> None:
    stuck_in_a_preview(monday)
    with ProjectProcess(monday, "preview") as preview:
        await_rows(monday, IN_THE_WAIT)
        result = monday.run()
        assert result.exit_code == 0, monday.output
        assert "a preview was at work; it was ended for this run" in monday.output
        assert preview.exit_code() == 75
    assert preview.lines[-1].startswith("preview: stopped: the preview was ended"), preview.output
    assert "Traceback" not in preview.output
    assert monday.day("silver.c") == "tuesday"
    assert dict(monday.database.sql("SELECT kind, status FROM elt.runs WHERE run_id > 1"))["run"] == "done"
    assert monday.database.sql("SELECT FROM elt.runs WHERE status = 'running'") == []


def test_a_load_ends_a_preview_that_is_still_staging(monday: Project) -> None:
    monday.keboola.faults.add(Fault("slice", "stall", at=0.5))
    with ProjectProcess(monday, "preview") as preview:
        assert monday.keboola.faults.stalled.wait(PATIENCE), preview.output
        assert monday.run("c").exit_code == 0, monday.output
        assert preview.exit_code() == 75, preview.output
        monday.keboola.faults.release()
    assert monday.day("silver.c") == "tuesday"


@contextmanager
def holding_the_run_lock(project: Project, name: str) -> Iterator[None]:
    with closing(project.database.connect()) as holder:
        sql(holder, "SET application_name = %s", name)
        sql(holder, "SELECT pg_advisory_lock(6646900, 1)")
        yield


@pytest.mark.parametrize("name", ["elt pid 1 on host", "elt preview pid 1 on host"])
def test_a_preview_meets_a_run_or_another_preview(monday: Project, name: str) -> None:
    from lib.errors import BusyError

    with holding_the_run_lock(monday, name), pytest.raises(BusyError, match=name) as busy:
        monday.preview()
    assert busy.value.exit_code == 75


def test_kill_9_of_a_preview_leaves_nothing(monday: Project) -> None:
    stuck_in_a_preview(monday)
    changed_view(monday)
    new_view(monday)
    before = everything(monday)
    with ProjectProcess(monday, "preview") as preview:
        await_rows(monday, IN_THE_WAIT)
        preview.kill()
    await_rows(monday, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1", expected=False)
    assert everything(monday) == before
    assert monday.run().exit_code == 0, monday.output


# ---- rows of views --------------------------------------------------------------------------------------------------


def compared(database: EmptyDatabase, before: list, after: list, kind: str, **how) -> list:
    """The changes of a view of one column, which a table holds."""
    with closing(database.connect()) as connection:
        sql(connection, f"CREATE SCHEMA gold; CREATE SCHEMA elt_staging; CREATE TABLE t (k text, v {kind})")
        sql(connection, "CREATE VIEW gold.of_t AS SELECT k, v FROM t")
        for row in before:
            sql(connection, "INSERT INTO t VALUES (%s, %s)", *row)
        sql(connection, "BEGIN")
        views = ViewRows(connection, 1, how.get("compare_all", False), lambda step: None, how.get("limit", 1000))
        views.remember()
        sql(connection, "DELETE FROM t")
        for row in after:
            sql(connection, "INSERT INTO t VALUES (%s, %s)", *row)
        found = views.compare()
        sql(connection, "ROLLBACK")
        sql(connection, "DROP SCHEMA gold, elt_staging CASCADE; DROP TABLE t")
    return found


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("numeric", "1.0", "1.00"),
        ("json", '{"a":1}', '{"a": 1}'),
        ("point", "(1,2)", "(1,3)"),
        ("double precision", "0", "-0"),
        ("text", "abc", "ABC"),
        ("text", "", None),
        ("integer[]", "{1,NULL}", "{1}"),
        ("timestamptz", "2026-01-01", "2026-01-02"),
        ("circle", "<(0,0),1>", "<(1,0),1>"),
    ],
)
def test_every_value_that_is_printed_otherwise_is_a_change(
    database: EmptyDatabase, kind: str, old: str, new: str | None
) -> None:
    (view,) = compared(database, [("same", old), ("k", old)], [("same", old), ("k", new)], kind)
    (change,), counted = view.changes.rows, (view.changes.inserted, view.changes.updated, view.changes.deleted)
    assert counted == (0, 1, 0) and change.key == {"k": "k"}
    assert str(change.before["v"]) != str(change.after["v"])


def test_rows_are_compared_as_multisets(database: EmptyDatabase) -> None:
    dice = random.Random(20)
    for _ in range(12):
        rows = [
            [(dice.choice("ab") if dice.random() < 0.9 else None, dice.randrange(3)) for _ in range(n)]
            for n in (dice.randrange(9), dice.randrange(9))
        ]
        before, after = map(Counter, rows)
        views = compared(database, *rows, "integer")
        if before == after:
            assert views == []
            continue
        (view,) = views
        if not max([*(before - after).values(), *(after - before).values()], default=0) > 1:
            key = [(row["k"], row["v"]) for change in view.changes.rows for row in (change.after,) if row]
            assert Counter(key) == after - before
        came = view.changes.inserted + view.changes.updated
        went = view.changes.deleted + view.changes.updated
        assert (came, went) == ((after - before).total(), (before - after).total())


def test_a_view_of_very_many_rows_is_compared_on_wish(database: EmptyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_rows, "MANY_ROWS", 100)
    rows = [(str(number), "1") for number in range(5)], [(str(number), "2") for number in range(5)]
    (view,) = compared(database, *rows, "integer")
    assert view.changes is None and view.why.startswith("about ") and "--all" in view.why
    (view,) = compared(database, *rows, "integer", compare_all=True, limit=2)
    assert view.changes.updated == 5 and len(view.changes.rows) == 2


def test_a_view_that_cannot_be_read_is_named_with_the_reason(monday: Project) -> None:
    monday.database.sql("CREATE VIEW gold.broken AS SELECT 1 / (length(v) - 7) AS n FROM silver.c")
    preview = monday.preview()
    assert [(view.relation, view.why) for view in preview.views if view.why] == [("gold.broken", "division by zero")]
    assert monday.result.exit_code == 0
