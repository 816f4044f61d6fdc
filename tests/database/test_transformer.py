"""Scripts are split as psql splits them. Refusals and errors name file and line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config.jobs import Check, Script
from lib.errors import CheckFailed, LockTimeout, ScriptError
from lib.postgres.connection import Connection, execute
from lib.postgres.transaction import TransactionSettings, transaction
from lib.transform import checks, scripts
from lib.transform.refusals import refusals
from lib.transform.replace_view import replacement_help
from lib.transform.scripts import ScriptResult
from lib.transform.statements import statements
from tests.support.databases import EmptyDatabase
from tests.support.project import GOLD, Project
from tests.support.roles import Role
from tests.support.scripts import ROUTINE, SPLIT, script


def psql(database: EmptyDatabase, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the server's own psql, without a psqlrc."""
    address = " ".join(f"{name}={value}" for name, value in database.connect_args.items())
    command = [database.server.psql, "-X", "-q", "-d", address, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def run_script(connection: Connection, text: Script) -> ScriptResult:
    """Run a script in a transaction, as a run does."""
    with transaction(connection):
        return scripts.run_script(connection, text)


def run_check(connection: Connection, text: Check) -> ScriptResult:
    with transaction(connection):
        return checks.run_check(connection, text)


# ---- splitting ------------------------------------------------------------------------------------------------------


TRICKY = [
    *SPLIT,
    ROUTINE,
    ROUTINE.replace("\n", "\r\n"),
    "-- windows\r\nSELECT 1;\r\n\r\nSELECT 'a\r\nb';\r\n",
    "-- an old mac\rSELECT 1; -- c\rSELECT 2;\r",
    "SELECT 1 /* never ends ; SELECT 2;",
    'SELECT "never ends ; SELECT 2;',
    "SELECT $$ never ends ; $a$ SELECT 2;",
    "SELECT E'never ends \\'; SELECT 2;",
    "SELECT 'a''; SELECT 'b'';",
    "SELECT E'a'\n  'it\\'s; one'; SELECT 2;",
    "SELECT E'a' -- c\n -- d\n 'it\\'s; one'; SELECT 2;",
    "SELECT 'a'\n'b\\'; SELECT 2;",
    "SELECT E'a' 'b\\'; SELECT 2;",
    "SELECT U&'\\0441;', U&\"d\\0061t;\", B'1', X'1F', N';'; SELECT 2;",
    "SELECT 1 */* c; */ 2; SELECT 3 /**/; SELECT 4 /***/; SELECT /*/*/ ; */ */ 5;",
    "SELECT 4 -- /* no block\n; SELECT '-- no comment', '/*'; SELECT 2;",
    "SELECT $é$ ; $é$, $_1$;$_1$, é$a$; SELECT 3;",
    "SELECT €$x$; SELECT $x$;$x$;",
    "SELECT\u00a01; SELECT\u20282;",
    "DO $$ BEGIN PERFORM 1; END $$; SELECT 2;",
    "SELECT (1;\n2); SELECT 3;",
    "SELECT ')'; SELECT (1)); SELECT 2;",
    "SELECT 1::text, ARRAY[1,2][1:2], '{\"a\": 1}'::json; SELECT 2;",
    "SELECT 'lone ''quote'; SELECT '😀;'; SELECT 2;",
    "\u00a0SELECT 1;\u2003SELECT 2;",
    "CREATE FUNCTION case; SELECT 2;",
    "CREATE FUNCTION f(begin int) RETURNS int AS ';'; SELECT 2;",
    "SELECT 1,\n\n  ';\n\n;',\n\n\n2; SELECT 3;",
    "CREATE PROCEDURE q() LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; ",
]


def sent_by_psql(database: EmptyDatabase, texts: list[str], folder: Path) -> list[list[str]]:
    """The statements that psql sends for each script, without leading comments."""
    arguments: list[str | Path] = ["-L", folder / "log"]
    (folder / "log").unlink(missing_ok=True)
    for number, text in enumerate(texts):
        file = folder / f"{number}.sql"
        file.write_bytes(text.encode())
        arguments += ["-f", file, "-c", "SELECT 'end of a script'"]
    psql(database, *arguments)
    log = (folder / "log").read_bytes().decode()
    sent: list[list[str]] = [[]]
    for query_text in re.findall(r"^/?\*+ QUERY \*+/?\n(.*?)\n/?\*{20,}/?$", log, re.DOTALL | re.MULTILINE):
        if query_text == "SELECT 'end of a script'":
            sent.append([])
        elif (statement := without_comments(query_text)) not in ("", ";"):
            sent[-1].append(statement)
    assert sent.pop() == []
    return sent


def without_comments(text: str) -> str:
    """The text without leading blanks and comments."""
    while True:
        text = text.strip(" \t\r\n\v\f")
        if text.startswith("--"):
            text = re.sub(r"\A--[^\r\n]*", "", text)
        elif text.startswith("/*"):
            depth, position = 1, 2
            while depth and position < len(text):
                pair = text[position : position + 2]
                depth += {"/*": 1, "*/": -1}.get(pair, 0)
                position += 2 if pair in ("/*", "*/") else 1
            text = text[position:]
        else:
            return text


def squeezed(text: str) -> str:
    """Without trailing blanks, and without empty lines: psql drops those outside of literals."""
    return re.sub("\n+", "\n", text).rstrip(" \t\r\n\v\f")


def assert_psql_agrees(database: EmptyDatabase, texts: list[str], folder: Path) -> None:
    for text, sent in zip(texts, sent_by_psql(database, texts, folder), strict=True):
        ours = [squeezed(statement.text) for statement in statements(text)]
        theirs = [squeezed(one) for one in sent]
        theirs = [one if one in ours else squeezed(one.removesuffix(";")) for one in theirs]
        assert ours == theirs, f"of {text!r}"


def test_psql_splits_tricky_scripts_the_same_way(database_on_each: EmptyDatabase, tmp_path: Path) -> None:
    assert_psql_agrees(database_on_each, TRICKY, tmp_path)


#: a backslash outside of quotes would start a psql command, so only \' is generated
FRAGMENTS = [
    "'",
    "''",
    '"',
    "E'",
    "\\'",
    "--",
    "/*",
    "*/",
    "*",
    "$$",
    "$a$",
    "$",
    "(",
    ")",
    ";",
    ";",
    "\n",
    "\r\n",
    " ",
] + ["a", "é", "€", "CREATE FUNCTION ", "create or replace procedure ", " BEGIN ", " CASE ", " END ", "SELECT "]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join), min_size=8, max_size=8))
def test_psql_splits_whatever_there_is_the_same_way(database: EmptyDatabase, tmp_path: Path, texts: list[str]) -> None:
    plain = [text for text in texts if not any("psql" in refusal for refusal in refusals(script(text)))]
    assert_psql_agrees(database, plain, tmp_path)


# ---- running --------------------------------------------------------------------------------------------------------


def failure(database: EmptyDatabase, text: str) -> str:
    """The error message of a failed script."""
    connection = database.connect()
    with pytest.raises(ScriptError) as caught, transaction(connection, TransactionSettings(2)):
        scripts.run_script(connection, script(text))
    return str(caught.value)


def test_an_error_names_file_and_line_and_keeps_postgresqls_words(database: EmptyDatabase) -> None:
    for text, said in {
        "SELECT 1;\n\nSELECT\n  1,\n  oops FROM (SELECT 1) t;": '5: column "oops" does not exist',
        "-- head\nSELECT 1;\nSELEC 2;": '3: syntax error at or near "SELEC"',
        "SELECT 1;\nSELECT 2 +": "2: syntax error at end of input",
        "SELECT 'é😀é',\n'é'; SELECT\n'😀', '😀é', oops;": '3: column "oops" does not exist',
        "SELECT 1,\noops;": '2: column "oops" does not exist',
        "SELECT '😀😀😀😀', oops\n\n\n;": '1: column "oops" does not exist',
        "/* 😀\n */\r\nSELECT 'x\r\n',\r\n oops;\r\n": '5: column "oops" does not exist',
        "SELECT 1;\nSELECT *\nFROM\n  nowhere.x;": '4: relation "nowhere.x" does not exist',
        "SELECT 'a;\n\nb': SELECT 1": '3: syntax error at or near ":"',
        "SELECT 1;\nSELECT 'never ends;\n": "2: unterminated quoted string at or near",
        "SELECT 1;\nSELECT 1 /* never ends;\n": "2: unterminated /* comment at or near",
        "CREATE TABLE public.t (\n  a int,\n  a int\n);": '1: column "a" specified more than once',
        "CREATE DATABASE x;": "1: CREATE DATABASE cannot run inside a transaction block",
        "DO $$\nBEGIN\n  COMMIT;\nEND $$;": "1: invalid transaction termination",
    }.items():
        assert failure(database, text).startswith(f"silver/x.sql:{said}"), failure(database, text)


def test_an_error_at_run_time_names_the_line_where_its_statement_begins(database: EmptyDatabase) -> None:
    assert failure(database, "SELECT 1;\n\nSELECT 1,\n  1 / (a - 1)\nFROM generate_series(1, 2) a;") == (
        "silver/x.sql:3: division by zero"
    )
    text = "CREATE TABLE public.t (a int PRIMARY KEY, b text NOT NULL);\nINSERT INTO public.t\nVALUES (1, NULL);"
    assert failure(database, text) == (
        'silver/x.sql:2: null value in column "b" of relation "t" violates not-null constraint\n'
        "    Failing row contains (1, null)."
    )


def test_an_error_inside_a_function_names_the_line_of_its_caller(database: EmptyDatabase) -> None:
    function = """CREATE FUNCTION public.f(x int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN

    RETURN (SELECT a FROM nowhere);
END $$;
SELECT 'two',
    public.f(1);"""
    assert failure(database, function) == 'silver/x.sql:6: relation "nowhere" does not exist'
    division = function.replace("(SELECT a FROM nowhere)", "x / (x - 1)")
    assert failure(database, division) == "silver/x.sql:6: division by zero"
    syntax = function.replace("RETURN (SELECT", "RETURN (SELEC")
    assert failure(database, syntax).startswith("silver/x.sql:4: ")
    raised = function.replace("RETURN (SELECT a FROM nowhere)", "RAISE 'so what' USING HINT = 'nothing'")
    assert failure(database, raised) == "silver/x.sql:6: so what\n    nothing"


def test_a_percent_sign_is_only_a_character(database: EmptyDatabase) -> None:
    run_script(database.connect(), script("CREATE TABLE public.t AS SELECT '%s %(x)s %%' AS v, 7 % 4 AS rest;"))
    assert database.sql("SELECT v, rest FROM public.t") == [("%s %(x)s %%", 3)]


def test_rows_that_a_script_publishes_are_added_up(database: EmptyDatabase) -> None:
    text = """
        SELECT 1 AS inserted, 2 AS updated, 3 AS deleted, 4 AS unchanged;
        SELECT 10::bigint AS inserted, 20 AS updated, 30 AS deleted, 40 AS unchanged;
        SELECT 5 AS inserted;
    """
    assert run_script(database.connect(), script(text)).row_counts == (11, 22, 33, 44)
    assert run_script(database.connect(), script("SELECT 1;")).row_counts is None
    none = "SELECT 1 AS inserted, 2 AS updated, 3 AS deleted, 4 AS unchanged WHERE false;"
    assert run_script(database.connect(), script(none)).row_counts == (0, 0, 0, 0)


def test_a_lock_that_somebody_holds_is_no_error_of_the_script(database: EmptyDatabase) -> None:
    database.sql("CREATE TABLE public.t (a int)")
    colleague, connection = database.connect(), database.connect()
    colleague.autocommit = False
    execute(colleague, "LOCK TABLE public.t")
    with (
        pytest.raises(LockTimeout, match="^silver/x.sql:2: canceling statement due to lock timeout"),
        transaction(connection, TransactionSettings(0.05)),
    ):
        scripts.run_script(connection, script("\nDELETE FROM public.t;"))


# ---- checks ---------------------------------------------------------------------------------------------------------


def check(text: str, on_failure: str = "error") -> Check:
    return Check(script(text, "checks/x.sql"), on_failure)


def test_a_check_without_rows_holds_and_one_with_rows_shows_the_first_of_them(database: EmptyDatabase) -> None:
    connection = database.connect()
    assert run_check(connection, check("SELECT 1 WHERE false;")).broken_by == 0
    with pytest.raises(CheckFailed) as caught:
        run_check(connection, check("SELECT n, 'text ' || n AS t, NULL AS nothing FROM generate_series(1, 1007) n"))
    first, *examples, last = str(caught.value).splitlines()
    assert first == "checks/x.sql: check failed: 1,007 rows"
    assert examples == [f"    n={n}  t='text {n}'  nothing=NULL" for n in range(1, 6)]
    assert last == "    and 1,002 more"


def test_exactly_as_many_rows_as_are_shown_are_no_more(database: EmptyDatabase) -> None:
    with pytest.raises(CheckFailed) as caught:
        run_check(database.connect(), check("SELECT n FROM generate_series(1, 5) n"))
    assert str(caught.value).splitlines()[-1] == "    n=5"


def test_an_example_is_one_line_of_bounded_length_with_values_as_postgresql_writes_them(
    database: EmptyDatabase,
) -> None:
    text = r"""SELECT 1.50 AS price, E'a\nb' AS t, date '10000-01-02' AS late, date '0044-03-15 BC' AS early,
        ARRAY[date 'infinity'] AS never, 0 = 1 AS f, interval '1 day' AS i, repeat('x', 1000) AS x"""
    with pytest.raises(CheckFailed) as caught:
        run_check(database.connect(), check(text))
    first, line = str(caught.value).splitlines()
    assert first == "checks/x.sql: check failed: 1 row"
    assert line.startswith(
        r"    price=1.50  t='a\nb'  late='10000-01-02'  early='0044-03-15 BC'"
        "  never='{infinity}'  f='f'  i='1 day'  x='xx"
    )
    assert len(line) == 304


def test_a_failed_check_says_what_its_script_says_to_do(database: EmptyDatabase) -> None:
    text = "-- Claim: all is well.\n-- What to do: look at a,\n-- then  at b.\n\n-- not this\nSELECT 1 AS n;"
    with pytest.raises(CheckFailed) as caught:
        run_check(database.connect(), check(text))
    assert str(caught.value) == ("checks/x.sql: check failed: 1 row\n    n=1\n    What to do: look at a, then at b.")


def test_a_check_that_warns_has_the_message_of_one_that_fails(database: EmptyDatabase) -> None:
    text = "SELECT n FROM generate_series(1, 7) AS n"
    with pytest.raises(CheckFailed) as caught:
        run_check(database.connect(), check(text))
    result = run_check(database.connect(), check(text, "warn"))
    assert (result.broken_by, result.claim) == (7, str(caught.value))
    assert run_check(database.connect(), check("SELECT 1 WHERE false", "warn")).claim == ""


def test_a_check_that_is_no_select_fails_by_file_and_line(database: EmptyDatabase) -> None:
    with pytest.raises(ScriptError, match=r"^checks/x\.sql:2: the last statement returns no result: .* SELECT$"):
        run_check(database.connect(), check("SELECT 1;\nCREATE TABLE public.t (a int);"))


def test_a_check_may_prepare_what_it_looks_at(database: EmptyDatabase) -> None:
    connection = database.connect()
    assert run_check(connection, check("CREATE TEMP TABLE t (a int);\nSELECT a FROM pg_temp.t")).broken_by == 0
    with pytest.raises(ScriptError, match=r"^checks/x\.sql:3: column \"b\" does not exist"):
        run_check(connection, check("SELECT 1;\nSELECT a,\n b FROM pg_temp.t"))


# ---- a view that cannot be replaced ---------------------------------------------------------------------------------


def test_the_commands_for_a_view_that_cannot_be_replaced_work_in_psql(project: Project) -> None:
    project.put_day("monday")
    project.run()
    sql = project.database.sql
    for command in (
        'CREATE ROLE "an analyst"',
        "CREATE ROLE colleague",
        "GRANT CREATE, USAGE ON SCHEMA public TO colleague",
        "GRANT USAGE ON SCHEMA gold TO colleague",
        "GRANT SELECT ON gold.both TO colleague WITH GRANT OPTION",
        'GRANT SELECT, INSERT ON gold.both TO "an analyst"',
        'CREATE SCHEMA "Ours"',
        "CREATE VIEW public.deep WITH (security_barrier = true, security_invoker = true) AS"
        " SELECT a, 'one;\n  two' AS t FROM gold.both",
        'CREATE MATERIALIZED VIEW "Ours"."deeper view" AS SELECT a FROM public.deep',
        "COMMENT ON VIEW public.deep IS 'a''s\n  own'",
        'CREATE VIEW public.last AS SELECT d.a FROM "Ours"."deeper view" AS d JOIN gold.both AS b ON b.a = d.a',
        'GRANT SELECT ON "Ours"."deeper view" TO PUBLIC',
        'CREATE INDEX deepest ON "Ours"."deeper view" (a DESC)',
        'COMMENT ON COLUMN "Ours"."deeper view".a IS \'key\'',
        'GRANT SELECT (a) ON "Ours"."deeper view" TO colleague',
        "ALTER VIEW gold.both SET (security_barrier = true)",
        "GRANT UPDATE (id), UPDATE (b) ON gold.both TO colleague",
        "ALTER VIEW public.deep OWNER TO colleague",
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER no INSTEAD OF INSERT ON gold.both FOR EACH ROW EXECUTE FUNCTION public.no()",
        "CREATE RULE nothing AS ON DELETE TO public.deep DO INSTEAD NOTHING",
    ):
        sql(command)
    state = """
        SELECT relname, relkind, relowner::regrole::text, ARRAY(SELECT unnest(relacl)::text ORDER BY 1),
               pg_get_viewdef(oid), obj_description(oid), ARRAY(SELECT unnest(reloptions) ORDER BY 1),
               ARRAY(SELECT concat(attname, attacl, col_description(attrelid, attnum)) FROM pg_attribute
                     WHERE attrelid = pg_class.oid AND attnum > 0 ORDER BY attnum),
               ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = pg_class.oid),
               ARRAY(SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = pg_class.oid ORDER BY 1)
        FROM pg_class WHERE relname IN ('deep', 'deeper view', 'last') ORDER BY 1
    """
    grants = """
        SELECT ARRAY(SELECT unnest(relacl)::text ORDER BY 1), reloptions,
               (SELECT attacl::text FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'id'),
               ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = pg_class.oid)
        FROM pg_class WHERE oid = 'gold.both'::regclass
    """
    before, granted = sql(state), sql(grants)
    changed = (
        "CREATE OR REPLACE VIEW gold.both AS SELECT v AS a, id FROM silver.a;\nCOMMENT ON VIEW gold.both IS 'New.';"
    )
    project.script("gold/both.sql", changed)
    project.registry["both"]["checks"] = []
    assert project.run().exit_code == 1
    assert 'gold."both" is read by public.last, "Ours"."deeper view", public.deep.' in project.output

    typed = re.search(r"^ +BEGIN;$.*?^ +COMMIT;$", project.output, re.DOTALL | re.MULTILINE)
    done = psql(project.database, "-v", "ON_ERROR_STOP=1", stdin=typed[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(state) == before
    assert sql(grants) == granted
    assert sql("SELECT a, obj_description('gold.both'::regclass) FROM gold.both LIMIT 1") == [("monday", "New.")]
    assert project.run().exit_code == 0
    assert sql("TABLE public.last LIMIT 1") == [("monday",)]
    sql('DROP OWNED BY "an analyst", colleague CASCADE')
    sql('DROP ROLE "an analyst", colleague')


@pytest.mark.parametrize("kind", ["MATERIALIZED VIEW", "TABLE"])
def test_a_table_with_the_name_of_a_gold_view_is_named_with_the_commands_that_replace_it(
    project: Project, kind: str
) -> None:
    """An older version of a project made it: it was filled once and never again."""
    project.put_day("monday")
    project.run()
    project.database.sql(
        f"DROP VIEW gold.both; CREATE {kind} gold.both AS SELECT 1 AS id, 'old' AS a, 'old' AS b;"
        " GRANT SELECT ON gold.both TO pg_monitor; CREATE VIEW public.reader AS SELECT a FROM gold.both"
    )
    assert project.run().exit_code == 1
    assert f'gold."both" is a {kind.lower()} in this database.' in project.output
    typed = re.search(r"^ +BEGIN;$.*?^ +COMMIT;$", project.output, re.DOTALL | re.MULTILINE)
    done = psql(project.database, "-v", "ON_ERROR_STOP=1", stdin=typed[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT a, has_table_privilege('pg_monitor', 'gold.both', 'SELECT') FROM public.reader")


def typed_by_hand(project: Project) -> None:
    """Type the printed commands in psql, where nothing is in the path."""
    typed = re.search(r"^ +BEGIN;$.*?^ +COMMIT;$", project.output, re.DOTALL | re.MULTILINE)
    assert typed, project.output
    nothing = "SET search_path = gold, silver;\n"
    done = psql(project.database, "-v", "ON_ERROR_STOP=1", stdin=nothing + typed[0])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_gold_view_that_reads_another_is_made_again_from_its_own_script(project: Project) -> None:
    """Both scripts changed: the old definition of the reader does not fit the new view."""
    project.put_day("monday")
    project.registry["both"] |= {"transform": ["gold/both.sql", "gold/list.sql"], "checks": []}
    project.script("gold/list.sql", "CREATE OR REPLACE VIEW gold.list AS SELECT b FROM gold.both;")
    assert project.run().exit_code == 0
    project.database.sql("COMMENT ON VIEW gold.list IS 'by hand'")
    project.script("gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT id, v AS a FROM silver.a;")
    project.script("gold/list.sql", "CREATE OR REPLACE VIEW gold.list AS SELECT a FROM gold.both;")
    assert project.run().exit_code == 1
    typed_by_hand(project)
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT obj_description('gold.list'::regclass), count(a) FROM gold.list") == [
        ("by hand", 10)
    ]


def test_the_commands_name_every_schema_and_keep_comments_that_the_script_does_not_set(project: Project) -> None:
    project.put_day("monday")
    project.registry["both"]["checks"] = []
    project.run()
    for command in (
        "CREATE DOMAIN public.short AS text",
        "CREATE FUNCTION public.twice(text) RETURNS text LANGUAGE sql RETURN $1 || $1",
        "CREATE VIEW public.reader AS SELECT public.twice(a)::public.short AS t FROM gold.both",
        "COMMENT ON COLUMN gold.both.a IS 'by hand'",
    ):
        project.database.sql(command)
    project.script(
        "gold/both.sql",
        "CREATE OR REPLACE VIEW gold.both AS SELECT v AS a, id FROM silver.a;"
        " COMMENT ON COLUMN gold.both.id IS 'number';",
    )
    assert project.run().exit_code == 1
    typed_by_hand(project)
    assert project.database.sql("SELECT col_description('gold.both'::regclass, 1)") == [("by hand",)]
    assert project.database.sql("SELECT count(t) FROM public.reader") == [(10,)]


def test_a_reader_in_a_schema_that_is_closed_to_us_does_not_hide_the_cause(
    project: Project, elt: Role, mallory: Role
) -> None:
    project.put_day("monday")
    project.registry["both"]["checks"] = []
    project.database.sql(f"CREATE SCHEMA closed AUTHORIZATION {mallory.name}")
    project.connect_args |= {"user": elt.name}
    assert project.run().exit_code == 0, project.output
    project.database.sql(f"GRANT USAGE ON SCHEMA gold TO {mallory.name}; GRANT SELECT ON gold.both TO {mallory.name}")
    project.database.sql(
        f"CREATE VIEW closed.mine AS SELECT a FROM gold.both; ALTER VIEW closed.mine OWNER TO {mallory.name}"
    )
    project.script("gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT v AS a, id FROM silver.a;")
    assert project.run().exit_code == 1
    assert "gold/both.sql:1: cannot drop columns from view" in project.output
    assert f"An administrator must type the commands: closed.mine belongs to {mallory.name}." in project.output
    typed_by_hand(project)
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT viewowner FROM pg_views WHERE schemaname = 'closed'") == [(mallory.name,)]


def test_a_view_that_belongs_to_somebody_else_is_named_with_the_statement_that_helps(
    project: Project, elt: Role
) -> None:
    project.put_day("monday")
    project.connect_args |= {"user": elt.name}
    assert project.run().exit_code == 0, project.output
    project.database.sql("ALTER VIEW gold.both OWNER TO postgres")
    project.script("gold/both.sql", GOLD + "-- a comment")
    assert project.run().exit_code == 1
    (remedy,) = re.findall(r"An administrator types, then run again: (ALTER VIEW .*;)", project.output)
    project.database.sql(remedy)
    assert project.run().exit_code == 0


def test_what_uses_the_row_type_of_a_view_is_named(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.registry["both"]["checks"] = []
    project.database.sql(
        "CREATE SCHEMA app; CREATE FUNCTION app.all_of_them() RETURNS SETOF gold.both"
        " LANGUAGE sql AS 'SELECT * FROM gold.both'; CREATE TABLE app.kept (row gold.both)"
    )
    project.script("gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT v AS a, id FROM silver.a;")
    assert project.run().exit_code == 1
    (named,) = re.findall(r"the commands below do not restore them: (.*)\. Drop them first", project.output)
    assert "function app.all_of_them()" in named and 'table column app.kept."row"' in named


@pytest.mark.parametrize("option", ["security_invoker", "security_barrier"])
def test_a_new_definition_keeps_the_security_options_of_its_view(project: Project, option: str) -> None:
    """Without security_invoker a reader would see the rows that a policy hides from it."""
    options = "SELECT reloptions FROM pg_class WHERE oid = 'gold.both'::regclass"
    project.put_day("monday")
    assert project.run().exit_code == 0
    project.database.sql(f"ALTER VIEW gold.both SET ({option} = true)")
    project.script("gold/both.sql", GOLD + "-- a comment")
    assert project.run().exit_code == 0
    assert project.database.sql(options) == [([f"{option}=true"],)]
    project.script("gold/both.sql", GOLD.replace(" AS\nSELECT", f" WITH ({option} = false) AS\nSELECT"))
    assert project.run().exit_code == 0
    assert project.database.sql(options) == [([f"{option}=false"],)], "the script says so itself"


def test_a_new_definition_keeps_the_check_option_of_its_view(project: Project) -> None:
    project.put_day("monday")
    project.registry["both"]["checks"] = []
    view = "CREATE OR REPLACE VIEW gold.both AS SELECT id, v AS a, v AS b FROM silver.a WHERE id < 5;"
    project.script("gold/both.sql", view)
    assert project.run().exit_code == 0
    project.database.sql("ALTER VIEW gold.both SET (check_option = local)")
    project.script("gold/both.sql", view + "-- a comment")
    assert project.run().exit_code == 0
    assert project.database.sql("SELECT reloptions FROM pg_class WHERE relname = 'both'") == [(["check_option=local"],)]


def test_an_option_that_a_new_definition_does_not_allow_is_named_with_the_command_that_drops_it(
    project: Project,
) -> None:
    project.put_day("monday")
    project.registry["both"]["checks"] = []
    project.script("gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT id, v AS a, v AS b FROM silver.a;")
    assert project.run().exit_code == 0
    project.database.sql("ALTER VIEW gold.both SET (check_option = local)")
    project.script("gold/both.sql", GOLD)  # a join cannot be updated
    assert project.run().exit_code == 1
    assert "gold.both had the option check_option, which its new definition does not allow: " in project.output
    (command,) = re.findall(r"type in psql, then run again: (ALTER VIEW .*;)", project.output)
    assert psql(project.database, "-v", "ON_ERROR_STOP=1", stdin=command).returncode == 0
    assert project.run().exit_code == 0


def test_a_column_that_only_changes_its_name_needs_no_drop(project: Project) -> None:
    project.put_day("monday")
    project.run()
    project.registry["both"]["checks"] = []
    project.script(
        "gold/both.sql", "CREATE OR REPLACE VIEW gold.both AS SELECT id AS number, v AS a, v AS b FROM silver.a;"
    )
    assert project.run().exit_code == 1
    (line,) = re.findall(r"in psql: (ALTER VIEW .*?;)", project.output)
    done = psql(project.database, stdin=line.replace(" old ", " id ").replace(" new;", " number;"))
    assert (done.returncode, done.stderr) == (0, "")
    assert project.run().exit_code == 0


def test_any_other_failure_of_a_gold_script_gets_no_such_help(database: EmptyDatabase) -> None:
    connection = database.connect()
    gold = script("CREATE VIEW gold.x AS SELECT oops;", "gold/x.sql")
    with pytest.raises(ScriptError) as caught:
        run_script(connection, gold)
    assert replacement_help(connection, gold, caught.value, "public", {}) == ""
