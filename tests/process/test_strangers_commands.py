"""No command calls a function of a stranger."""

from __future__ import annotations

import argparse
import re

import psycopg2
import pytest

from lib.cli.arguments import main_parser
from tests.support.checkout import Morning
from tests.support.databases import sql_once
from tests.support.look_alikes import set_traps, sprung
from tests.support.roles import Role

# ---- look-alikes of PostgreSQL's own functions and operators --------------------------------------------------------


#: the first run fills these by plain INSERT, so undo can only leave them as they are
BY_OTHER_STATEMENTS = [
    word for table in ("product_history", "stock_thresholds", "warehouses") for word in ("--except", f"silver.{table}")
]


def words_of_commands() -> list[list[str]]:
    """Every command of main.py, new ones included."""
    # argparse has no public way to list the commands of a parser
    (commands,) = [action for action in main_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    further = {
        "check": [["check"], ["check", "--online"]],
        "credentials": [["credentials", "show"]],
        "psql": [["psql", "-c", "SELECT quote_ident(n), format('%s', n) FROM (SELECT 'x'::name AS n) AS x"]],
        "demo": [],  # they use a separate server, which no other role can reach
        "stop": [],  # the same
        "remove": [],  # it does not connect
        "undo": [["undo", "--yes", *BY_OTHER_STATEMENTS]],
    }
    return [[], *(words for name in commands.choices for words in further.get(name, [[name]]))]


def test_no_command_of_a_superuser_calls_a_look_alike(morning: Morning, mallory: Role) -> None:
    set_traps(morning.database, mallory)
    for words in [["elt_daily_load.py"], *(["main.py", *words] for words in words_of_commands())]:
        told = morning.run(*words)
        assert told.returncode == 0, (words, told.stdout)
        assert sprung(morning.database) == [], words
    # a person's own psql is not protected: there a look-alike shows that it works
    with pytest.raises(psycopg2.Error):
        morning.database.sql(
            "SET search_path = public; SELECT quote_ident('x'::name) OPERATOR(public.||) 'x'::name || 1/0"
        )


# ---- who owns what a run calls --------------------------------------------------------------------------------------


def test_commands_that_only_look_call_nothing_of_an_intruder(morning: Morning, mallory: Role) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    database = morning.database
    database.sql(f"GRANT USAGE, CREATE ON SCHEMA elt TO {mallory.name}; DROP VIEW elt.recent_runs CASCADE")
    database.sql(f"CREATE SCHEMA app AUTHORIZATION {mallory.name}")
    mallory.sql("CREATE SEQUENCE app.trap; GRANT USAGE ON SCHEMA app TO PUBLIC; GRANT ALL ON app.trap TO PUBLIC")
    mallory.sql(
        "CREATE VIEW elt.recent_runs AS SELECT setval('app.trap', 1) AS run_id, 'done' AS status, now() AS started_at,"
        " 1 AS seconds, 1 AS jobs_published, 0 AS jobs_not_published, 1 AS rows_loaded, NULL::text AS error"
    )
    for words in (
        ["main.py", "status"],
        ["main.py", "changes"],
        ["main.py", "check", "--online"],
        ["elt_daily_load.py"],
    ):
        told = morning.run(*words)
        refused = "nothing was done, because code of other roles would run as postgres" in told.stdout
        assert refused or words[-1] == "--online"
        assert told.returncode
    assert "nothing was done" in morning.run("main.py").stdout
    assert f"ALTER VIEW elt.recent_runs OWNER TO postgres;  -- belongs to {mallory.name}." in told.stdout
    assert mallory.sql("SELECT is_called FROM app.trap") == [(False,)]
    database.sql(f"DROP VIEW elt.recent_runs; REVOKE CREATE ON SCHEMA elt FROM {mallory.name}")
    assert morning.run("elt_daily_load.py").returncode == 0, "what was dropped is made again"
    assert morning.run("main.py", "status").returncode == 0


# ---- set-ups that are as they should be -----------------------------------------------------------------------------


def test_check_online_warns_of_what_a_stranger_could_do_and_the_printed_statements_end_it(
    morning: Morning, mallory: Role
) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    database = morning.database
    database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    database.sql(
        f"GRANT CREATE, USAGE ON SCHEMA silver TO {mallory.name}; GRANT ALL ON silver.products TO {mallory.name}"
    )
    database.sql("GRANT TRIGGER ON elt.runs, bronze.products TO PUBLIC")
    warned = morning.run("main.py", "check", "--online")
    assert warned.returncode == 0, warned.stdout
    statements = re.findall(r"warning: .*(REVOKE [^;]*;)", warned.stdout)
    assert sorted(statements) == sorted([
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        f"REVOKE CREATE ON SCHEMA silver FROM {mallory.name};",
        f"REVOKE REFERENCES ON silver.products FROM {mallory.name};",
        f"REVOKE TRIGGER ON silver.products FROM {mallory.name};",
        "REVOKE TRIGGER ON bronze.products FROM PUBLIC;",
        "REVOKE TRIGGER ON elt.runs FROM PUBLIC;",
    ])  # fmt: skip
    assert morning.run("elt_daily_load.py").returncode == 0, "the mere right stops no morning"
    for statement in statements:
        database.sql(statement)
    assert "warning" not in morning.run("main.py", "check", "--online").stdout
    assert database.sql(f"SELECT has_table_privilege('{mallory.name}', 'silver.products', 'SELECT')") == [(True,)]


def test_what_an_administrator_restored_is_handed_over_by_what_check_online_prints_at_once(
    morning: Morning, elt: Role, mallory: Role
) -> None:
    """Like `pg_restore --no-owner` as administrator: all objects are his, and our role has no right to any of them."""
    toml = morning.folder / "elt_settings.toml"
    toml.write_text(toml.read_text().replace('user = "postgres"', f'user = "{elt.name}"'))
    assert morning.run("elt_daily_load.py").returncode == 0
    morning.database.sql(f"REASSIGN OWNED BY {elt.name} TO postgres; DROP OWNED BY {elt.name}")
    morning.database.sql(f"GRANT TRIGGER ON silver.products TO {mallory.name}")
    assert "check --online" in morning.run("elt_daily_load.py").stdout
    told = morning.run("main.py", "check", "--online")
    assert told.returncode == 2 and "\nerror: 1 problem found" in told.stdout, told.stdout
    statements = "".join(re.findall(r"^    .*\n", told.stdout.partition("as an administrator:\n")[2], re.M))
    assert statements.count("GRANT USAGE, CREATE ON SCHEMA") == 6
    assert statements.count("GRANT") == 7, "readers use the views of elt_changes"
    assert re.findall(r"GRANT \w+ TO", statements) == []
    statements += re.findall(r"^warning: (REVOKE .*)", told.stdout, re.M)[0]
    sql_once(morning.database.connect_args, statements)  # as they are, comments included
    told = morning.run("main.py", "check", "--online")
    assert told.returncode == 0 and "warning" not in told.stdout, told.stdout
    loaded = morning.run("elt_daily_load.py")
    assert loaded.returncode == 0 and "warning" not in loaded.stdout, loaded.stdout
