"""`main.py` without a command: shows what is set up, how the last run ended, and what to type next."""

from __future__ import annotations

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.cli.status import is_new, reading
from lib.config.settings import Settings, require_postgres
from lib.elt_schema.strangers import refuse_strangers
from lib.errors import EltError, SettingsError
from lib.postgres.connection import Connection, Database, address, query
from lib.run.plan import read_project


def overview(settings: Settings, console: Console) -> int:
    """Print what is set up, how the last run ended, and what to type next. Something missing is no error. Returns 0."""
    try:
        registry = read_project(settings.root)
        console.text(f"jobs        {', '.join(registry.jobs)}")
    except EltError as error:
        console.text(f"jobs        {_first_line(error)}")
    console.text(f"Keboola     {settings.keboola_url or 'not set up'}")
    console.text(f"PostgreSQL  {_postgres(settings, console)}\n")
    names = ["run", "status", "psql"] if settings.keboola_url else ["demo"]
    for name in [*names, "check", "--help"]:
        console.text(f"    {how_to_type(name, settings)}{' ' * (10 - len(name))}{HINTS[name]}")
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
    """The database and the result of its last run, or why they are not known."""
    try:
        require_postgres(settings)
    except SettingsError:
        return "not set up"
    try:
        with reading("PostgreSQL"):
            connection = Database(settings).connect("elt overview")
            try:
                refuse_strangers(connection)
                return f"{address(connection)}\nlast run    {_last_run(connection, console)}"
            finally:
                connection.close()
    except EltError as error:
        return _first_line(error)


def _last_run(connection: Connection, console: Console) -> str:
    if is_new(connection):
        return "none yet"
    run_id, outcome, started_at, seconds, error = query(
        connection, "SELECT run_id, status, started_at, seconds, error FROM elt.recent_runs LIMIT 1"
    )[0]
    when = f"{started_at.astimezone(console.zone):%Y-%m-%d %H:%M %Z}"
    took = "" if seconds is None else f", {seconds} s"
    return f"{run_id}, {outcome}, {when}{took}" + (f": {error.splitlines()[0]}" if error else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
