"""The commands of main.py beside `run`: where things stand, what is wrong before a run, secrets, psql."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import sys
from collections.abc import Callable, Sequence

from lib import inspection
from lib.command_line import command
from lib.console import Console
from lib.credentials import postgres_password
from lib.database import Connection, address, execute, query, translated
from lib.errors import CredentialError, EltError, SettingsError
from lib.plan import open_database, read_project
from lib.settings import Settings, require_postgres
from lib.stop import Stop
from lib.strangers import psql_path, refuse_strangers


def run_command(name: str | None, given: argparse.Namespace, settings: Settings) -> int:
    """Run one command against what the settings name; returns its exit code."""
    from lib.command_line import run_project

    console = Console(zone=settings.zone)
    commands: dict[str | None, Callable[[], int]] = {
        None: lambda: overview(settings, console),
        "run": lambda: run_project(settings, given.jobs, given),
        "check": lambda: check(settings, console, online=given.online),
        "status": lambda: status(settings, console, runs=given.runs),
        "credentials": lambda: credentials(settings, console, given.action, given.name),
        "psql": lambda: psql(settings, given.arguments),
        "stop": lambda: stop(settings, console),
    }
    return commands[name]()


# ---- where things stand ---------------------------------------------------------------------------------------------


def overview(settings: Settings, console: Console) -> int:
    """What is set up, what happened last, and what to type next; never fails for what is missing."""
    try:
        registry = read_project(settings.root)
        console.text(f"jobs        {', '.join(registry.jobs)}")
    except EltError as error:
        console.text(f"jobs        {_first_line(error)}")
    console.text(f"Keboola     {settings.keboola_url or 'not set up'}")
    console.text(f"PostgreSQL  {_postgres(settings, console)}\n")
    names = ["run", "status", "psql"] if settings.keboola_url else ["demo"]
    for name in [*names, "check", "--help"]:
        console.text(f"    {command(name, settings)}{' ' * (10 - len(name))}{HINTS[name]}")
    return 0


HINTS = {
    "run": "load everything now",
    "status": "the last runs, and how old each table is",
    "psql": "look into the tables",
    "check": "what is missing or wrong, each with what to do",
    "demo": "see it all work, with nothing set up",
    "--help": "every command",
}


def _postgres(settings: Settings, console: Console) -> str:
    """Which database, and what the last run there came to; or why that cannot be said."""
    try:
        require_postgres(settings)
    except SettingsError:
        return "not set up"
    try:
        with translated("PostgreSQL"):
            connection = open_database(settings, Stop()).connect("elt overview")
            try:
                refuse_strangers(connection)
                return f"{address(connection)}\nlast run    {_last_run(connection, console)}"
            finally:
                connection.close()
    except EltError as error:
        return _first_line(error)


def _last_run(connection: Connection, console: Console) -> str:
    if query(connection, "SELECT to_regclass('elt.recent_runs')")[0][0] is None:
        return "none yet"
    rows = query(connection, "SELECT run_id, status, started_at, seconds, error FROM elt.recent_runs LIMIT 1")
    if not rows:
        return "none yet"
    run_id, outcome, started_at, seconds, error = rows[0]
    when = f"{started_at.astimezone(console.zone):%Y-%m-%d %H:%M %Z}"
    return f"{run_id}, {outcome}, {when}, {seconds} s" + (f": {error.splitlines()[0]}" if error else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


# ---- status ---------------------------------------------------------------------------------------------------------


def status(settings: Settings, console: Console, *, runs: int) -> int:
    """What gold holds, the last runs, each job's age, where the time of the last run went; errors come last, whole."""
    with translated("status"):
        connection = open_database(settings, Stop()).connect("elt status")
        try:
            refuse_strangers(connection, [("gold", "load_status")])
            installed = query(connection, "SELECT to_regclass('elt.recent_runs') IS NOT NULL")[0][0]
            if not installed or not query(connection, "SELECT FROM elt.recent_runs LIMIT 1"):
                console.text(address(connection))
                console.text(f"no run yet; to load everything: {command('run', settings)}")
                return 0
            if sentence := _sentence(connection, settings):
                console.text(sentence)
            console.text(address(connection))
            for title, headers, sql in STATUS:
                rows = query(connection, sql, {"runs": runs})
                if rows:
                    console.text(f"\n{title}")
                    console.table(headers, rows)
            errors = query(connection, ERRORS, {"runs": runs})
            if errors:
                console.text("\nerrors, the newest first")
            for what, error in errors:
                console.text(f"{what}: {error}")
        finally:
            connection.close()
    return 0


def _sentence(connection: Connection, settings: Settings) -> str:
    """What the view gold.load_status says to people; nothing where these jobs do not have it."""
    if query(connection, "SELECT to_regclass('gold.load_status')") == [(None,)]:
        return ""
    execute(connection, "SELECT set_config('TimeZone', %s, false)", (settings.time_zone,))
    sentence: str = query(connection, "SELECT sentence FROM gold.load_status")[0][0]
    return sentence


STATUS: Sequence[tuple[str, Sequence[str], str]] = (
    (
        "runs, the newest first",
        ("run", "status", "started", "seconds", "jobs published", "rows loaded"),
        "SELECT run_id, status, started_at, seconds,"
        " jobs_published || ' of ' || (jobs_published + jobs_not_published), rows_loaded"
        " FROM elt.recent_runs ORDER BY run_id DESC LIMIT %(runs)s",
    ),
    (
        "jobs, as of their last run",
        ("job", "status", "last published", "rows", "run"),
        "SELECT job, status, published_at, rows_loaded, run_id FROM elt.job_status ORDER BY job",
    ),
    (
        "what took longest in the newest run that published",
        ("step", "seconds", "changes", "unchanged"),
        "SELECT script, seconds, '+' || inserted || ' ~' || updated || ' -' || deleted, unchanged FROM elt.script_runs"
        " WHERE run_id = (SELECT max(run_id) FROM elt.script_runs) ORDER BY seconds DESC, script LIMIT 10",
    ),
    (
        "checks that warn",
        ("check", "rows"),
        "SELECT script, broken_by FROM elt.script_runs"
        " WHERE run_id = (SELECT max(run_id) FROM elt.script_runs) AND broken_by > 0 ORDER BY job, script",
    ),
)
ERRORS = """
    SELECT format('run %%s', run_id), error FROM (
        SELECT run_id, '' AS job, error FROM elt.runs
        UNION ALL
        SELECT run_id, job, job || ': ' || error FROM elt.job_runs WHERE status = 'failed'
    ) AS failures
    WHERE error IS NOT NULL AND run_id IN (SELECT run_id FROM elt.runs ORDER BY run_id DESC LIMIT %(runs)s)
    ORDER BY run_id DESC, job
"""


# ---- check ----------------------------------------------------------------------------------------------------------


def check(settings: Settings, console: Console, *, online: bool) -> int:
    """Everything that can be found wrong before a run, all at once; exit code 2 where something is."""
    findings = inspection.offline(settings)
    if online:
        findings += inspection.online(settings)
    for finding in findings:
        if finding.level == "wrong":
            console.error(finding.text)
        elif finding.level == "warning":
            console.warn(finding.text)
        else:
            console.text(f"ok: {finding.text}")
    wrong = sum(finding.level == "wrong" for finding in findings)
    if wrong:
        console.error(f"{wrong} of {len(findings)} things to mend")
        return 2
    console.text(
        "all is well"
        + ("" if online else f"; to ask Keboola and PostgreSQL too: {command('check --online', settings)}")
    )
    return 0


# ---- secrets --------------------------------------------------------------------------------------------------------


def credentials(settings: Settings, console: Console, action: str, name: str | None) -> int:
    """Set, show or delete a secret. It is typed without an echo, or read from standard input, never from argv."""
    from lib import credentials as secrets

    if action == "show":
        missing = 0
        for each in [name] if name else ["keboola", "postgres"]:
            try:
                console.text(f"{each}: {secrets.show_secret(settings, each)}")
            except CredentialError as error:
                console.error(f"{each}: {error}")
                missing = 2
        return missing
    if name is None:
        raise SettingsError(f"say which secret: {command(f'credentials {action} keboola', settings)} (or postgres)")
    if action == "delete":
        places = secrets.delete_secret(settings, name)
        console.text(f"{name}: deleted from {', '.join(places)}" if places else f"{name}: nothing was stored here")
        return 0
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            value = getpass.getpass(f"{'Storage API token' if name == 'keboola' else 'password'} (not shown): ")
        except (EOFError, KeyboardInterrupt):
            raise CredentialError("nothing was typed, nothing was stored") from None
    else:
        value = (sys.stdin.readline() if sys.stdin is not None else "").rstrip("\r\n")
        if not value:
            raise CredentialError("no secret on standard input: run it in a terminal, or redirect a file into it")
    console.text(f"{name}: stored in {secrets.set_secret(settings, name, value)}")
    return 0


# ---- psql and the embedded server -----------------------------------------------------------------------------------


def psql(settings: Settings, arguments: Sequence[str]) -> int:
    """Become psql on the configured database; the password goes by its environment, for argv can be seen by all."""
    require_postgres(settings)
    database = open_database(settings, Stop())
    connection = database.connect("elt psql")
    with translated("PostgreSQL"):
        path = psql_path(connection)
    connection.close()
    # what the user's own PGOPTIONS say comes last, and wins
    environ = os.environ | {"PGOPTIONS": f"-c search_path={path} {os.environ.get('PGOPTIONS', '')}".strip()}
    password = postgres_password(settings, settings.postgres.user)
    if password is not None:
        environ["PGPASSWORD"] = password.reveal()
    binary = shutil.which("psql") if not settings.postgres.embedded else None
    if binary is None:
        from lib.wheel import programs

        binary = str(programs(18) / "psql")
    target = " ".join(f"{key}='{_escaped(str(value))}'" for key, value in database.address.items())
    sys.stdout.flush()
    os.execve(binary, [binary, *([target] if target else []), *arguments], environ)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def stop(settings: Settings, console: Console) -> int:
    """Stop the embedded server; its data stay."""
    if not settings.postgres.embedded:
        raise SettingsError("the PostgreSQL of elt_settings.toml is not an embedded one: it is not ours to stop")
    from lib.embedded import stop_running

    stopped = stop_running(settings.state / "postgres")
    console.text("stopped; the data stay" if stopped else "was not running")
    return 0
