"""The command `status`: shows which day gold holds, the last runs, and how old each table is."""

from __future__ import annotations

from collections.abc import Sequence

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.config.settings import Settings
from lib.elt_schema.strangers import refuse_strangers
from lib.postgres.connection import Connection, Database, address, execute, query
from lib.postgres.driver_errors import translated


def status(settings: Settings, console: Console, *, runs: int) -> int:
    """Print which day gold holds, the last `runs` runs, each job's last load, and the slowest steps.

    Errors are printed last, in full. Returns 0. Raises EltError if the database cannot be asked.
    """
    with translated("status"):
        connection = Database(settings).connect("elt status")
        try:
            refuse_strangers(connection, [("gold", "load_status")])
            installed = query(connection, "SELECT to_regclass('elt.recent_runs') IS NOT NULL")[0][0]
            if not installed or not query(connection, "SELECT FROM elt.recent_runs LIMIT 1"):
                console.text(address(connection))
                console.text(f"no run yet; to load everything: {how_to_type('run', settings)}")
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
            for subject, error in errors:
                console.text(f"{subject}: {error}")
        finally:
            connection.close()
    return 0


def _sentence(connection: Connection, settings: Settings) -> str:
    """The sentence of the view gold.load_status. Empty if the project's jobs do not make this view."""
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
