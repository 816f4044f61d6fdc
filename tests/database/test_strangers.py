"""Code of strangers never runs as the pipeline's role: look-alike functions, strangers' objects and triggers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date

import pytest

from lib.cli.console import Console
from lib.config.settings import Settings
from lib.elt_schema import installation
from lib.elt_schema.strangers import creators, of_others, psql_path, script_path
from lib.errors import DatabaseError
from lib.postgres.connection import Database
from lib.run import history
from sandbox.faults import Fault
from tests.support import ROOT
from tests.support.databases import EmptyDatabase, sql_once
from tests.support.look_alikes import (
    set_traps,
    sprung,
)
from tests.support.project import Project
from tests.support.roles import Role


@pytest.fixture
def loaded(project: Project, elt: Role) -> Project:
    """A project whose role is no superuser, loaded on monday; tuesday's rows are in Keboola."""
    project.connect_args = elt.connect_args
    project.put_day("monday")
    assert project.run().exit_code == 0, project.output
    project.put_day("tuesday")
    return project


def refused(project: Project) -> str:
    """Run, check that nothing was done, and return the error."""
    with pytest.raises(DatabaseError) as caught:
        project.run()
    assert project.day("silver.a") == "monday"
    return str(caught.value)


# ---- look-alikes of PostgreSQL's own functions and operators --------------------------------------------------------


def test_the_traps_would_spring(database: EmptyDatabase, mallory: Role) -> None:
    set_traps(database, mallory)
    database.sql("SELECT quote_ident('x'::name)")
    assert sprung(database) != []


def test_a_load_of_an_ordinary_role_calls_no_look_alike(project: Project, elt: Role, mallory: Role) -> None:
    set_traps(project.database, mallory)
    project.connect_args = elt.connect_args
    for day in ("monday", "tuesday"):
        project.put_day(day)
        assert project.run().exit_code == 0, project.output
    assert {v for _, v in project.rows("silver.a")} == {"tuesday"}
    assert sprung(project.database) == []


# ---- the path of scripts --------------------------------------------------------------------------------------------


def path_of(role: Role) -> str:
    opened = Database(Settings(root=ROOT), keywords=role.connect_args).connect("path")
    try:
        return script_path(opened).path
    finally:
        opened.close()


def test_scripts_see_public_only_where_no_stranger_may_create_in_it(
    database: EmptyDatabase, elt: Role, mallory: Role
) -> None:
    assert path_of(elt) == "public"
    database.sql(f"GRANT CREATE ON SCHEMA public TO {elt.name}")
    assert path_of(elt) == "public"
    for grant, revoke in {
        "GRANT CREATE ON SCHEMA public TO PUBLIC": "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT CREATE ON SCHEMA public TO {mallory.name}": f"REVOKE CREATE ON SCHEMA public FROM {mallory.name}",
        f"ALTER SCHEMA public OWNER TO {mallory.name}": "ALTER SCHEMA public OWNER TO pg_database_owner",
    }.items():
        database.sql(grant)
        assert path_of(elt) == "pg_catalog", grant
        database.sql(revoke)
        assert path_of(elt) == "public", revoke


def test_what_a_stranger_made_before_the_revoke_keeps_public_out_of_the_path(
    database: EmptyDatabase, elt: Role, mallory: Role
) -> None:
    database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    mallory.sql("CREATE FUNCTION public.length(varchar) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    database.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert path_of(elt) == "pg_catalog"
    database.sql(f"ALTER FUNCTION public.length(varchar) OWNER TO {elt.name}")
    assert path_of(elt) == "public"


#: a change of roles, the resulting search_path of scripts, and the statement that undoes it
STRANGERS = [
    ("ALTER ROLE {mallory} NOLOGIN", "public", "ALTER ROLE {mallory} LOGIN"),
    ("ALTER ROLE {mallory} SUPERUSER", "public", "ALTER ROLE {mallory} NOSUPERUSER"),
    ("ALTER DATABASE {database} OWNER TO {mallory}", "public", "ALTER DATABASE {database} OWNER TO postgres"),
    ("GRANT {mallory} TO {elt}", "public", "REVOKE {mallory} FROM {elt}"),
    ("GRANT {elt} TO {mallory}", "pg_catalog", "REVOKE {elt} FROM {mallory}"),
    ("ALTER ROLE {elt} SUPERUSER", "pg_catalog", "ALTER ROLE {elt} NOSUPERUSER"),
    ("ALTER ROLE {mallory} NOINHERIT CREATEROLE", "pg_catalog", "ALTER ROLE {mallory} INHERIT NOCREATEROLE"),
]


def test_who_is_a_stranger(database: EmptyDatabase, elt: Role, mallory: Role) -> None:
    names = {"mallory": mallory.name, "elt": elt.name, "database": database.name}
    database.sql(f"GRANT CREATE ON SCHEMA public TO {mallory.name}")
    for change, path, back in STRANGERS:
        database.sql(change.format(**names))
        assert path_of(elt) == path, change
        database.sql(back.format(**names))
        assert path_of(elt) == "pg_catalog", back


def test_a_role_that_can_become_the_schemas_owner_only_by_set_role_may_create(
    database: EmptyDatabase, elt: Role, mallory: Role
) -> None:
    database.sql(f"CREATE ROLE {database.name}_team")
    database.sql(f"ALTER ROLE {mallory.name} NOINHERIT; GRANT {database.name}_team TO {mallory.name}")
    database.sql(f"ALTER SCHEMA public OWNER TO {database.name}_team")
    try:
        assert path_of(elt) == "pg_catalog"
    finally:
        database.sql(f"ALTER SCHEMA public OWNER TO pg_database_owner; DROP ROLE {database.name}_team")


def test_a_script_that_fails_for_a_name_in_public_is_told_why_and_the_revoke_helps(loaded: Project, elt: Role) -> None:
    mallory = Role(loaded.database, "mallory")
    loaded.database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    loaded.database.sql("CREATE FUNCTION public.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'")
    loaded.edit("silver/c.sql", "id::integer AS id", "twice(id::integer) AS id")
    assert loaded.run("c").exit_code == 1
    assert "silver/c.sql:4: function twice(integer) does not exist" in loaded.output
    assert "public has 'twice', but scripts do not see it: role" in loaded.output
    assert (
        "may create functions in it, which would run with the pipeline's rights."
        " REVOKE CREATE ON SCHEMA public FROM PUBLIC;" in loaded.output
    )
    loaded.database.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert loaded.run("c").exit_code == 0, loaded.output
    mallory.drop()


# ---- who owns what a run calls --------------------------------------------------------------------------------------

EVIL = "LANGUAGE plpgsql AS $f$ BEGIN PERFORM setval('app.trap', 1); RETURN; END $f$"


@pytest.fixture
def intruder(loaded: Project, mallory: Role) -> Role:
    """Mallory, a stranger who could once create objects in every schema."""
    for schema in ("elt", "elt_staging", "elt_changes", "bronze", "silver", "gold"):
        loaded.database.sql(f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {mallory.name}")
    loaded.database.sql(f"CREATE SCHEMA app AUTHORIZATION {mallory.name}; GRANT USAGE ON SCHEMA app TO PUBLIC")
    mallory.sql("CREATE SEQUENCE app.trap; GRANT ALL ON SEQUENCE app.trap TO PUBLIC")
    return mallory


def may_no_longer_create(intruder: Role) -> None:
    intruder.database.sql(f"REVOKE CREATE ON SCHEMA elt, elt_staging, elt_changes FROM {intruder.name}")


#: an object that the intruder creates, how to remove it, and the message
IN_OUR_SCHEMAS = [
    (
        f"FUNCTION elt.publish_rows(text, text) RETURNS void {EVIL}",
        "FUNCTION elt.publish_rows(text, text)",
        "ALTER FUNCTION elt.publish_rows(text,text) OWNER TO {elt};  -- belongs to {name}.",
    ),
    ("SEQUENCE elt.mine", "SEQUENCE elt.mine", "ALTER SEQUENCE elt.mine OWNER TO {elt};  -- belongs to {name}."),
    (
        "VIEW elt.mine AS SELECT 1 AS one",
        "VIEW elt.mine",
        "ALTER VIEW elt.mine OWNER TO {elt};  -- belongs to {name}. If it is not yours: DROP VIEW elt.mine;",
    ),
    (
        "DOMAIN elt.mine AS text",
        "DOMAIN elt.mine",
        "ALTER TYPE elt.mine OWNER TO {elt};  -- belongs to {name}. If it is not yours: DROP TYPE elt.mine;",
    ),
    (
        "TABLE elt_staging.mine (v text)",
        "TABLE elt_staging.mine",
        "ALTER TABLE elt_staging.mine OWNER TO {elt};  -- belongs to {name}.",
    ),
    (
        "VIEW elt_changes.r1_1_rows AS SELECT 1 AS one",
        "VIEW elt_changes.r1_1_rows",
        "ALTER VIEW elt_changes.r1_1_rows OWNER TO {elt};  -- belongs to {name}.",
    ),
    (
        f"FUNCTION elt_staging.mine() RETURNS void {EVIL}",
        "FUNCTION elt_staging.mine",
        "DROP FUNCTION elt_staging.mine();",
    ),
]


def test_everything_in_our_own_schemas_must_be_ours(loaded: Project, intruder: Role, elt: Role) -> None:
    grant = f"CREATE ON SCHEMA elt, elt_staging, elt_changes {{}} {intruder.name}"
    for what, made, said in IN_OUR_SCHEMAS:
        loaded.database.sql("GRANT " + grant.format("TO"))
        intruder.sql(f"CREATE {what}")
        may_no_longer_create(intruder)
        assert said.format(name=intruder.name, elt=elt.name) in refused(loaded), what
        loaded.database.sql(f"DROP {made}")
    assert intruder.sql("SELECT is_called FROM app.trap") == [(False,)]
    assert loaded.run().exit_code == 0


def test_no_stranger_may_create_in_our_own_schemas_and_the_printed_revoke_helps(
    loaded: Project, intruder: Role
) -> None:
    said = refused(loaded)
    for schema in ("elt", "elt_staging", "elt_changes"):
        statement = f"REVOKE CREATE ON SCHEMA {schema} FROM {intruder.name};"
        assert f"{statement}  -- role {intruder.name} may create in schema {schema}" in said
    for statement in re.findall(r"REVOKE .*;", said):
        loaded.database.sql(statement)
    assert loaded.run().exit_code == 0


@pytest.mark.parametrize(
    ("before", "what", "said"),
    [
        (
            "DROP VIEW gold.both; DROP TABLE silver.a",
            "CREATE TABLE silver.a (id int PRIMARY KEY, v text)",
            "table silver.a",
        ),
        ("DROP TABLE bronze.c", "CREATE TABLE bronze.c (id text, v text)", "table bronze.c"),
        ("DROP VIEW gold.both", "CREATE VIEW gold.both AS SELECT 1 AS id, '' AS a, '' AS b", 'view gold."both"'),
        (
            "",
            "CREATE TABLE app.child () INHERITS (silver.a)",
            "table app.child",
        ),
        (
            "CREATE OR REPLACE VIEW silver.helper AS SELECT * FROM app.beneath",
            "",
            "view app.beneath",
        ),
        ("CREATE OR REPLACE VIEW silver.helper AS SELECT app.f() AS one", "", "function app.f()"),
        ("ALTER TABLE silver.c ADD CHECK (app.f() > 0)", "", "function app.f()"),
        ("ALTER TABLE silver.c ADD w int DEFAULT app.f()", "", "function app.f()"),
        ("CREATE INDEX ON silver.c ((app.f()))", "", "function app.f()"),
        (
            "CREATE DOMAIN silver.d AS int CHECK (app.f() > 0); ALTER TABLE silver.c ADD w silver.d",
            "",
            "function app.f()",
        ),
    ],
)
def test_what_scripts_name_in_the_layers_and_what_lies_beneath_it_must_be_ours(
    loaded: Project, intruder: Role, elt: Role, before: str, what: str, said: str
) -> None:
    may_no_longer_create(intruder)
    intruder.sql("CREATE VIEW app.beneath AS SELECT 1 AS one; GRANT SELECT ON app.beneath TO PUBLIC")
    intruder.sql("CREATE FUNCTION app.f() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
    loaded.edit("checks/same.sql", ";", "; SELECT 1 FROM silver.helper WHERE false;")
    elt.sql("CREATE VIEW silver.helper AS SELECT 1 AS one" if "helper" not in before else "SELECT 1")
    for statement in filter(None, before.split("; ")):
        elt.sql(statement)
    if "INHERITS" in what:
        loaded.database.sql(f"{what}; ALTER TABLE app.child OWNER TO {intruder.name}")
    elif what:
        intruder.sql(what)
    with pytest.raises(DatabaseError) as caught:
        loaded.run()
    kind, name = said.split(" ", 1)
    assert f"ALTER {kind.upper()} {name} OWNER TO {elt.name};  -- belongs to {intruder.name}." in str(caught.value)


def test_a_view_of_a_colleague_is_no_reason_to_stop_where_scripts_do_not_name_it(
    loaded: Project, intruder: Role
) -> None:
    may_no_longer_create(intruder)
    loaded.database.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA silver, gold TO {intruder.name}")
    intruder.sql(
        "CREATE VIEW gold.my_view AS SELECT * FROM gold.both; CREATE VIEW app.my_view AS SELECT * FROM silver.a"
    )
    intruder.sql("CREATE TABLE silver.my_notes (id int)")
    assert loaded.run().exit_code == 0, loaded.output
    assert loaded.day("silver.a") == "tuesday"


def test_what_a_group_owns_that_we_belong_to_is_ours(loaded: Project, elt: Role) -> None:
    team = f"{loaded.database.name}_team"
    loaded.database.sql(f"CREATE ROLE {team}; GRANT {team} TO {elt.name}; ALTER TABLE silver.a OWNER TO {team}")
    loaded.database.sql(f"GRANT CREATE ON SCHEMA silver TO {team}")
    try:
        assert loaded.run().exit_code == 0, loaded.output
    finally:
        loaded.database.sql(f"REASSIGN OWNED BY {team} TO {elt.name}; DROP OWNED BY {team}; DROP ROLE {team}")


# ---- triggers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def trigger(loaded: Project, intruder: Role) -> str:
    """CREATE TRIGGER with a function of mallory; {} stands for the table."""
    may_no_longer_create(intruder)
    intruder.sql("""
        CREATE FUNCTION app.evil() RETURNS trigger LANGUAGE plpgsql
        AS $f$ BEGIN PERFORM setval('app.trap', 1); RETURN coalesce(NEW, OLD); END $f$
    """)
    return "CREATE TRIGGER evil BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION app.evil()"


def assert_not_run(intruder: Role) -> None:
    assert intruder.sql("SELECT is_called FROM app.trap") == [(False,)]


@pytest.mark.parametrize("table", ["silver.a", "bronze.a"])
def test_a_strangers_trigger_holds_its_group_back_by_name(
    loaded: Project, intruder: Role, trigger: str, table: str
) -> None:
    loaded.database.sql(f"GRANT ALL ON {table} TO {intruder.name}")
    intruder.sql(trigger.format(table))
    assert loaded.run().exit_code == 1
    assert f"trigger evil on {table} runs function app.evil() of role {intruder.name}" in loaded.last_line
    assert f"DROP TRIGGER evil ON {table};" in loaded.output
    assert loaded.day("silver.a") == "monday" and loaded.day("silver.c") == "tuesday"
    assert_not_run(intruder)


WAYS_TO_WRITE = [
    "INSERT INTO silver.notes VALUES (1);",
    "WITH x AS (UPDATE silver.notes SET id = 2 RETURNING id) SELECT * FROM x;",
    "DELETE FROM ONLY silver.notes;",
    "DO $$ BEGIN INSERT INTO silver.notes VALUES (1); END $$;",
    "MERGE INTO silver.notes AS n USING (SELECT 1 AS id) AS s ON false WHEN NOT MATCHED THEN INSERT VALUES (1);",
    "CREATE TEMP TABLE now AS SELECT 1 AS id;\n"
    "SELECT * FROM elt.publish_rows(source => 'now'::regclass, target => ('silver.' || 'notes')::regclass);",
]


def test_a_table_that_a_script_writes_in_any_way_is_looked_at(
    loaded: Project, intruder: Role, elt: Role, trigger: str
) -> None:
    elt.sql("CREATE TABLE silver.notes (id int PRIMARY KEY); INSERT INTO silver.notes VALUES (7)")
    elt.sql(f"GRANT ALL ON silver.notes TO {intruder.name}")
    intruder.sql(trigger.format("silver.notes"))
    rest = (loaded.root / "sql_scripts/silver/c.sql").read_text()
    for script in WAYS_TO_WRITE:
        loaded.script("silver/c.sql", f"{script}\n{rest}")
        assert loaded.run("c").exit_code == 1
        assert "trigger evil on silver.notes runs function app.evil()" in loaded.output, script
    assert_not_run(intruder)


#: What a stranger with ALL rights could do other than a trigger on the table itself: what exists before, what he
#: creates, and what the script of c does in addition.
OTHER_WAYS = {
    "a condition of a trigger": (
        "GRANT ALL ON silver.c TO {mallory}",
        "CREATE TRIGGER t BEFORE UPDATE ON silver.c FOR EACH ROW WHEN (app.when_())"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "",
    ),
    "a foreign key of ours with an action": (
        "CREATE TABLE silver.notes (id int REFERENCES silver.c ON DELETE CASCADE); INSERT INTO silver.notes VALUES (9);"
        " GRANT ALL ON silver.notes TO {mallory}",
        "CREATE TRIGGER t BEFORE DELETE ON silver.notes FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "",
    ),
    "a foreign key of his with an action": (
        "GRANT ALL ON silver.c TO {mallory}",
        "CREATE TABLE app.child (id int REFERENCES silver.c ON DELETE CASCADE); INSERT INTO app.child VALUES (9);"
        " CREATE TRIGGER t AFTER DELETE ON app.child FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "",
    ),
    "a table outside of the layers": (
        "CREATE SCHEMA ops; CREATE TABLE ops.log (id int); GRANT USAGE ON SCHEMA ops TO {mallory};"
        " GRANT ALL ON ops.log TO {mallory}",
        "CREATE TRIGGER t BEFORE INSERT ON ops.log FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "INSERT INTO ops.log VALUES (1);",
    ),
    "a statement that is put together": (
        "CREATE TABLE silver.dynamic (id int); GRANT ALL ON silver.dynamic TO {mallory}",
        "CREATE TRIGGER t BEFORE INSERT ON silver.dynamic FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "DO $$ BEGIN EXECUTE format('INSERT INTO %I.%I VALUES (1)', 'silver', 'dynamic'); END $$;",
    ),
    "a table beneath a view": (
        "CREATE TABLE silver.base (id int); CREATE VIEW silver.over AS SELECT * FROM silver.base;"
        " GRANT ALL ON silver.base TO {mallory}",
        "CREATE TRIGGER t BEFORE INSERT ON silver.base FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "INSERT INTO silver.over VALUES (1);",
    ),
    "a trigger in place of a write": (
        "CREATE TABLE silver.plain (id int); CREATE VIEW silver.written AS SELECT id FROM silver.plain;"
        " GRANT ALL ON silver.written TO {mallory}",
        "CREATE TRIGGER t INSTEAD OF INSERT ON silver.written FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "INSERT INTO silver.written VALUES (1);",
    ),
    "what a trigger of ours writes": (
        "CREATE TABLE silver.audit (id int); GRANT ALL ON silver.audit TO {mallory};"
        " CREATE FUNCTION silver.note() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN INSERT INTO silver.audit VALUES (1); RETURN NEW; END';"
        " CREATE TRIGGER ours BEFORE UPDATE ON silver.c FOR EACH ROW EXECUTE FUNCTION silver.note()",
        "CREATE TRIGGER t BEFORE INSERT ON silver.audit FOR EACH ROW EXECUTE FUNCTION app.evil()",
        "",
    ),
}
DROP_HIS_TRIGGERS = """
    DO $$ DECLARE his record; BEGIN
        FOR his IN SELECT tgrelid::regclass AS relation FROM pg_trigger WHERE tgname = 't' LOOP
            EXECUTE format('DROP TRIGGER t ON %s', his.relation);
        END LOOP;
    END $$
"""


def test_no_other_way_leads_to_a_strangers_trigger(loaded: Project, intruder: Role, elt: Role, trigger: str) -> None:
    rest = (loaded.root / "sql_scripts/silver/c.sql").read_text()
    intruder.sql("""
        CREATE FUNCTION app.when_() RETURNS boolean LANGUAGE plpgsql
        AS $f$ BEGIN PERFORM setval('app.trap', 1); RETURN false; END $f$
    """)
    for what, (there, his, script) in OTHER_WAYS.items():
        elt.sql(there.format(mallory=intruder.name))
        intruder.sql(his)
        loaded.script("silver/c.sql", f"{script}\n{rest}")
        loaded.put("c", [(str(number), what) for number in range(1, 9)])
        assert loaded.run("c").exit_code == 1, what
        assert re.search(r"before anything is written: trigger t on .* runs function app\.", loaded.last_line), what
        assert_not_run(intruder)
        loaded.database.sql(DROP_HIS_TRIGGERS)
        loaded.database.sql("DROP TABLE IF EXISTS app.child")
    assert loaded.run("c").exit_code == 0, loaded.output


def test_a_bronze_script_that_is_tried_out_fires_no_strangers_trigger(
    loaded: Project, intruder: Role, trigger: str
) -> None:
    loaded.database.sql(f"GRANT ALL ON bronze.c TO {intruder.name}")
    intruder.sql(trigger.format("bronze.c"))
    loaded.edit("bronze/c.sql", "COMMENT", "UPDATE bronze.c SET v = v;\nCOMMENT")
    assert loaded.run("c").exit_code == 1
    assert "trying out sql_scripts/bronze/c.sql: trigger evil on bronze.c runs function" in loaded.last_line
    assert_not_run(intruder)


def test_a_trigger_on_a_view_that_nobody_writes_is_no_reason_to_stop(
    loaded: Project, intruder: Role, trigger: str
) -> None:
    loaded.database.sql(f"GRANT ALL ON gold.both TO {intruder.name}")
    intruder.sql("CREATE TRIGGER t INSTEAD OF INSERT ON gold.both FOR EACH ROW EXECUTE FUNCTION app.evil()")
    assert loaded.run().exit_code == 0, loaded.output


def test_where_a_stranger_may_create_in_a_layer_owners_are_asked_before_each_script(
    loaded: Project, intruder: Role, elt: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_no_longer_create(intruder)
    fresh = "CREATE TABLE IF NOT EXISTS silver.fresh (id int);"
    loaded.edit("silver/c.sql", "DROP TABLE IF EXISTS", f"{fresh}\nDROP TABLE IF EXISTS")
    made: list[object] = []
    # during the publish his table exists before our script can create it
    monkeypatch.setattr(Console, "on_load", lambda *_: made.append(intruder.sql("CREATE TABLE silver.fresh (id int)")))
    assert loaded.run("c").exit_code == 1 and made
    assert f"ALTER TABLE silver.fresh OWNER TO {elt.name};  -- belongs to {intruder.name}." in loaded.output


# ---- set-ups that are as they should be -----------------------------------------------------------------------------


@pytest.fixture
def roles(database: EmptyDatabase) -> Iterator[Callable[..., str]]:
    """Creates roles and drops them after the test, even if they own the database by then."""
    made: list[str] = []

    def make(name: str, options: str = "") -> str:
        made.append(f"{database.name}_{name}")
        database.sql(f"CREATE ROLE {made[-1]} {options}")
        return made[-1]

    yield make
    database.sql(f"ALTER DATABASE {database.name} OWNER TO postgres")
    for role in made:
        database.sql(f"DROP OWNED BY {role} CASCADE")
    for role in made:
        database.sql(f"DROP ROLE {role}")


@pytest.mark.parametrize("who", ["another superuser", "the owner of the database"])
def test_schemas_of_an_administrator_with_the_rights_to_them_are_enough(
    database: EmptyDatabase, elt: Role, roles: Callable[..., str], who: str
) -> None:
    admin = roles("admin", "LOGIN SUPERUSER" if who == "another superuser" else "LOGIN")
    if who == "the owner of the database":
        database.sql(f"ALTER DATABASE {database.name} OWNER TO {admin}")
    for schema in installation.SCHEMAS:
        database.sql(f"CREATE SCHEMA {schema} AUTHORIZATION {admin}")
        database.sql(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {elt.name}")
    opened = Database(Settings(root=ROOT), keywords=elt.connect_args).connect("install")
    installation.install(opened)
    assert history.begin_run(opened, ["a"], "pid 1", date(2026, 1, 1)) == 1
    opened.close()


def test_a_schema_that_the_first_superuser_installed_is_handed_over_by_the_printed_statements(
    database: EmptyDatabase, elt: Role
) -> None:
    owner = Database(Settings(root=ROOT), keywords=database.connect_args).connect("install")
    installation.install(owner)
    owner.close()
    for schema in installation.SCHEMAS:
        database.sql(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {elt.name}")
    opened = Database(Settings(root=ROOT), keywords=elt.connect_args).connect("install")
    with pytest.raises(DatabaseError) as caught:
        installation.install(opened)
    database.sql(str(caught.value).partition("\n")[2])
    installation.install(opened)
    assert history.begin_run(opened, ["a"], "pid 1", date(2026, 1, 1)) == 1
    opened.close()


#: one object of each kind that a statement must name in its own way
OF_EACH_KIND = """
    CREATE TABLE s.numbered (id serial, n int GENERATED ALWAYS AS IDENTITY, t text);
    CREATE STATISTICS s.together ON id, n FROM s.numbered;
    CREATE TABLE s.parted (id int) PARTITION BY LIST (id);
    CREATE TABLE s.part PARTITION OF s.parted DEFAULT;
    CREATE VIEW s.seen AS SELECT * FROM s.numbered;
    CREATE MATERIALIZED VIEW s.stored AS SELECT 1 AS one;
    CREATE SEQUENCE s."counts Up";
    CREATE FUNCTION s.f(text, "char") RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE s.p(INOUT x int) LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE s.how_many (*) (sfunc = int8inc, stype = bigint, initcond = '0');
    CREATE AGGREGATE s.total (int) (sfunc = int4pl, stype = int);
    CREATE OPERATOR s.=== (leftarg = int, rightarg = int, function = int4eq);
    CREATE DOMAIN s.small AS int; CREATE TYPE s.pair AS (a int, b int); CREATE TYPE s.colour AS ENUM ('red');
    CREATE FOREIGN DATA WRAPPER files; CREATE SERVER disk FOREIGN DATA WRAPPER files;
    CREATE FOREIGN TABLE s.far (id int) SERVER disk;
"""


@pytest.mark.parametrize("schema", ["elt_staging", "silver"])
def test_an_object_of_any_kind_is_handed_over_by_the_printed_statement(
    database: EmptyDatabase, elt: Role, roles: Callable[..., str], schema: str
) -> None:
    # not the first superuser, whose types and operators are PostgreSQL's own in its catalogs
    admin = roles("admin", "SUPERUSER")
    database.sql(f"SET ROLE {admin}; CREATE SCHEMA {schema}; {OF_EACH_KIND.replace('s.', f'{schema}.')}")
    names = [schema_and_name for (schema_and_name,) in database.sql(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind <> 'S'"
        f" UNION SELECT proname FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace"
        " UNION SELECT unnest(ARRAY['counts Up', '===', 'small', 'colour'])"
    )]  # fmt: skip
    opened = Database(Settings(root=ROOT), keywords=elt.connect_args).connect("kinds")
    named = [("silver", name) for name in names]
    asked = of_others(opened, named, usable=True)
    assert len(asked) == 16 - (schema == "silver"), "\n".join(asked)  # no script can name statistics
    assert not any(" If " in line for line in asked), "an administrator's code need not be looked at"
    database.sql("\n".join(asked))
    assert of_others(opened, named, usable=True) == []
    opened.close()


def test_what_a_trusted_role_has_in_another_schema_may_stay_there(loaded: Project, elt: Role) -> None:
    loaded.database.sql("CREATE FUNCTION public.twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1'")
    elt.sql("ALTER TABLE silver.c ADD CHECK (public.twice(1) = 2)")
    opened = Database(Settings(root=ROOT), keywords=elt.connect_args).connect("public")
    assert of_others(opened, [("silver", "c")], usable=True) == []
    opened.close()


def test_who_can_become_the_databases_owner_is_no_stranger(
    loaded: Project, elt: Role, roles: Callable[..., str]
) -> None:
    group, alice = roles("dba", "NOLOGIN"), roles("alice", "LOGIN")
    loaded.database.sql(f"GRANT {group} TO {alice}; ALTER DATABASE {loaded.database.name} OWNER TO {group}")
    loaded.database.sql(f"GRANT CREATE ON DATABASE {loaded.database.name} TO {elt.name}")
    assert path_of(elt) == "public"
    assert loaded.run().exit_code == 0, loaded.output


def test_a_role_that_ours_may_only_grant_is_a_stranger_all_the_same(
    database: EmptyDatabase, roles: Callable[..., str]
) -> None:
    """Since PostgreSQL 16, the creator of a role is a member of it, but may only grant it."""
    elt, analyst = roles("manager", "LOGIN CREATEROLE"), f"{database.name}_analyst"
    sql_once(database.connect_args | {"user": elt}, f"CREATE ROLE {analyst} LOGIN")
    database.sql(f"GRANT CREATE ON SCHEMA public TO {analyst}")
    opened = Database(Settings(root=ROOT), keywords=database.connect_args | {"user": elt}).connect("path")
    assert script_path(opened).path == "pg_catalog"
    opened.close()
    database.sql(f"DROP OWNED BY {analyst}; DROP ROLE {analyst}")


def test_a_trigger_function_of_a_group_that_we_belong_to_is_ours(
    loaded: Project, elt: Role, roles: Callable[..., str]
) -> None:
    team, alice = roles("team", "NOLOGIN"), roles("alice", "LOGIN")
    loaded.database.sql(
        f"GRANT {team} TO {alice}, {elt.name}; CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO PUBLIC"
    )
    loaded.database.sql(f"""
        CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
        ALTER FUNCTION audit.note() OWNER TO {team};
        CREATE TRIGGER note BEFORE UPDATE ON silver.c FOR EACH ROW EXECUTE FUNCTION audit.note()
    """)
    assert loaded.run().exit_code == 0, loaded.output


def test_an_analysts_table_in_public_and_a_name_in_a_comment_are_no_reason_to_stop(
    loaded: Project, elt: Role, mallory: Role
) -> None:
    loaded.database.sql(f"CREATE TABLE public.my_notes (id int); ALTER TABLE public.my_notes OWNER TO {mallory.name}")
    loaded.database.sql(f"CREATE TABLE silver.old_stuff (id int); ALTER TABLE silver.old_stuff OWNER TO {mallory.name}")
    loaded.edit("gold/both.sql", "a and b side by side", "replaces silver.old_stuff")
    assert path_of(elt) == "public"
    assert loaded.run().exit_code == 0, loaded.output


def test_psql_sees_gold_and_silver_only_where_no_stranger_may_put_code_there(
    loaded: Project, elt: Role, mallory: Role
) -> None:
    def path() -> str:
        opened = Database(Settings(root=ROOT), keywords=elt.connect_args).connect("psql")
        try:
            return psql_path(opened)
        finally:
            opened.close()

    assert path() == "gold,silver"
    loaded.database.sql(f"GRANT CREATE ON SCHEMA gold TO {mallory.name}")
    assert path() == "silver"
    loaded.database.sql(f"GRANT CREATE ON SCHEMA silver TO {mallory.name}")
    assert path() == "pg_catalog"


def test_partitions_are_looked_at_too(loaded: Project, intruder: Role, elt: Role, trigger: str) -> None:
    elt.sql("DROP TABLE bronze.c; CREATE TABLE bronze.c (id text, v text) PARTITION BY LIST (id)")
    elt.sql(f"CREATE TABLE bronze.c_all PARTITION OF bronze.c DEFAULT; GRANT ALL ON bronze.c_all TO {intruder.name}")
    intruder.sql(trigger.format("bronze.c_all"))
    assert loaded.run("c").exit_code == 1
    assert "trigger evil on bronze.c_all runs function app.evil()" in loaded.output
    assert_not_run(intruder)


def test_our_own_history_is_looked_at_too(loaded: Project, intruder: Role, trigger: str) -> None:
    for table in ("runs", "job_runs", "script_runs", "slices", "definitions", "changes"):
        loaded.database.sql(f"GRANT ALL ON elt.{table} TO {intruder.name}")
        intruder.sql(trigger.format(f"elt.{table}"))
        assert f"trigger evil on elt.{table} runs function app.evil()" in refused(loaded)
        loaded.database.sql(f"DROP TRIGGER evil ON elt.{table}")
    assert_not_run(intruder)


def test_triggers_of_trusted_roles_are_allowed(loaded: Project, intruder: Role, elt: Role, trigger: str) -> None:
    loaded.database.sql(f"GRANT ALL ON silver.a, silver.c TO {intruder.name}")
    intruder.sql(trigger.format("silver.a"))
    elt.sql("ALTER TABLE silver.a DISABLE TRIGGER evil")
    auditor = f"{loaded.database.name}_auditor"
    loaded.database.sql(f"CREATE ROLE {auditor} NOLOGIN; CREATE SCHEMA audit AUTHORIZATION {auditor}")
    loaded.database.sql(f"""
        CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
        ALTER FUNCTION audit.note() OWNER TO {auditor}; GRANT USAGE ON SCHEMA audit TO PUBLIC;
        CREATE TRIGGER note BEFORE INSERT ON silver.c FOR EACH ROW EXECUTE FUNCTION audit.note()
    """)
    try:
        assert loaded.run().exit_code == 0, loaded.output
        assert_not_run(intruder)
        loaded.database.sql(f"GRANT {auditor} TO {intruder.name}")
        loaded.put_day("wednesday")
        assert loaded.run().exit_code == 1
        assert f"runs function audit.note() of role {auditor}" in loaded.last_line
    finally:
        loaded.database.sql(f"DROP OWNED BY {auditor} CASCADE; DROP ROLE {auditor}")


def test_a_trigger_that_comes_during_the_export_is_found_under_the_lock(
    loaded: Project, intruder: Role, trigger: str
) -> None:
    loaded.database.sql(f"GRANT ALL ON silver.c TO {intruder.name}")
    loaded.keboola.faults.add(Fault("slice", do=lambda: intruder.sql(trigger.format("silver.c"))))
    assert loaded.run("c").exit_code == 1
    assert "trigger evil on silver.c" in loaded.output
    assert_not_run(intruder)


def test_default_privileges_give_nobody_a_way_into_staging(loaded: Project, intruder: Role, elt: Role) -> None:
    may_no_longer_create(intruder)
    elt.sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {intruder.name}, PUBLIC")
    loaded.script("checks/rights.sql", "SELECT relacl FROM pg_class CROSS JOIN aclexplode(relacl)"
                  " WHERE relnamespace = 'elt_staging'::regnamespace AND grantee <> relowner;")  # fmt: skip
    loaded.registry["both"]["checks"] = ["checks/rights.sql"]
    assert loaded.run().exit_code == 0, loaded.output


def test_the_questions_are_answered_on_each_server(database_on_each: EmptyDatabase) -> None:
    opened = Database(Settings(root=ROOT), keywords=database_on_each.connect_args).connect("questions")
    assert script_path(opened).path == "public"
    assert creators(opened, ["public", "pg_catalog"]) == []
    assert of_others(opened, [("silver", "a"), ("gold", 'b"')], usable=True) == []
    opened.close()
