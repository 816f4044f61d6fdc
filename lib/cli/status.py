"""The command `status`: shows which day gold holds, the last runs, and how old each table is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.config.settings import Settings
from lib.elt_schema.strangers import refuse_strangers
from lib.errors import DatabaseError, EltError
from lib.postgres.connection import Connection, Database, address, execute, query
from lib.postgres.driver_errors import translated
from lib.run.plan import read_project


def status(settings: Settings, console: Console, *, runs: int) -> int:
    """Print which day gold holds, the last `runs` runs, each job's last load, and the slowest steps.

    Errors are printed last, in full. Returns 0. Raises EltError if the database cannot be asked.
    """
    with reading("status"):
        connection = Database(settings).connect("elt status")
        try:
            refuse_strangers(connection, [("gold", "load_status")])
            if is_new(connection):
                console.text(address(connection))
                console.text(f"no run yet; to load everything: {how_to_type('run', settings)}")
                return 0
            execute(connection, "SELECT set_config('TimeZone', %s, false)", (settings.time_zone,))
            if sentence := _sentence(connection):
                console.text(sentence)
            console.text(address(connection))
            console.text(f"time zone {settings.time_zone}")
            gone = _gone(connection, settings)
            # an older version lacks the table until the next run
            has_changes = query(connection, "SELECT to_regclass('elt.changes')") != [(None,)]
            for title, headers, sql in STATUS:
                sql = sql.replace("ROWS_CHANGED", ROWS_CHANGED if has_changes else "NULL")
                rows = query(connection, sql, {"runs": runs, "gone": gone})
                if rows:
                    console.text(f"\n{title}")
                    console.table(headers, rows)
            if gone:
                console.text(f"\nno longer in elt_jobs.json: {', '.join(gone)}")
            errors = query(connection, ERRORS, {"runs": runs})
            if errors:
                console.text("\nerrors, the newest first")
            for subject, error in errors:
                console.text(f"{subject}: {error}")
        finally:
            connection.close()
    return 0


#: what to do about an error, by SQLSTATE
REMEDIES = {
    "42P01": "The next run repairs schema elt, or says what to do.",
    "42703": "The next run repairs schema elt, or says what to do.",
    "42501": "`python main.py check --online` prints what an administrator types.",
}


@contextmanager
def reading(subject: str, remedies: Mapping[str, str] = REMEDIES) -> Iterator[None]:
    """Raise an error of the driver as ours, with what to do if something is missing or may not be read."""
    try:
        with translated(subject):
            yield
    except DatabaseError as error:
        remedy = remedies.get(getattr(error.__cause__, "pgcode", None) or "")
        if remedy is None:
            raise
        raise DatabaseError(f"{error}\n    {remedy}") from error


def is_new(connection: Connection) -> bool:
    """Whether no run has begun here."""
    no_table = query(connection, "SELECT to_regclass('elt.runs')") == [(None,)]
    return no_table or not query(connection, "SELECT FROM elt.recent_runs LIMIT 1")


def _gone(connection: Connection, settings: Settings) -> list[str]:
    """The jobs that ran here and are no longer in elt_jobs.json. Empty if that cannot be read: `check` says why."""
    try:
        registered = read_project(settings.root).jobs
    except EltError:
        return []
    ran = query(connection, "SELECT job FROM elt.job_status ORDER BY job")
    return [job for (job,) in ran if job not in registered]


def _sentence(connection: Connection) -> str:
    """The sentence of the view gold.load_status. Empty if the project's jobs do not make this view."""
    if query(connection, "SELECT to_regclass('gold.load_status')") == [(None,)]:
        return ""
    sentence: str = query(connection, "SELECT sentence FROM gold.load_status")[0][0]
    return sentence


#: a time in 11 columns, so that the table has 80
TIME = "to_char({0}, CASE WHEN {0} > now() - INTERVAL '300 days' THEN 'MM-DD HH24:MI' ELSE 'YYYY-MM-DD' END)"
PUBLISHED = TIME.format("published_at")
# to_jsonb, because an older version lacks the column until the next run
UNCHANGED = "to_jsonb(runs) ->> 'is_unchanged' = 'true'"
UNDOES = "to_jsonb(runs) ->> 'undone_run_id'"
UNDONE = "EXISTS (SELECT FROM elt.job_runs WHERE job_runs.run_id = runs.run_id AND job_runs.status = 'undone')"
#: in all tables together; the command `changes` shows each
ROWS_CHANGED = (
    "(SELECT '+' || sum(inserted) || ' ~' || sum(updated) || ' -' || sum(deleted)"
    " FROM elt.changes WHERE elt.changes.run_id = recent.run_id)"
)
IMPORTED = TIME.format("(to_jsonb(job_status) ->> 'source_imported_at')::timestamptz")

#: the scripts of each job's last run that published it, because not every run has every job
LATEST = (
    "FROM elt.script_runs AS newest WHERE job <> ALL (%(gone)s)"
    " AND run_id = (SELECT max(run_id) FROM elt.script_runs JOIN elt.job_runs USING (run_id, job)"
    " WHERE job = newest.job AND status = 'published')"
)

STATUS: Sequence[tuple[str, Sequence[str], str]] = (
    (
        "runs, the newest first",
        ("run", "status", "started", "seconds", "published", "rows loaded", "rows changed"),
        f"SELECT run_id, recent.status, {TIME.format('recent.started_at')}, seconds,"
        f" CASE WHEN {UNCHANGED} THEN 'unchanged' WHEN {UNDOES} IS NOT NULL THEN concat('undo of ', {UNDOES})"
        f" WHEN {UNDONE} THEN 'undone'"
        " ELSE jobs_published || ' of ' || cardinality(runs.jobs) END,"
        " rows_loaded, ROWS_CHANGED"
        " FROM elt.recent_runs AS recent JOIN elt.runs USING (run_id) ORDER BY run_id DESC LIMIT %(runs)s",
    ),
    (
        "jobs, as of their last run",
        ("job", "status", "published", "rows", "source imported"),
        f"SELECT job, CASE WHEN job = ANY (%(gone)s) THEN 'removed' ELSE status END, {PUBLISHED}, rows_loaded,"
        f" {IMPORTED} FROM elt.job_status ORDER BY job",
    ),
    (
        "what took longest when each job was last published",
        ("step", "seconds", "changes", "unchanged"),
        "SELECT script, seconds, '+' || inserted || ' ~' || updated || ' -' || deleted, unchanged"
        f" {LATEST} ORDER BY seconds DESC, script LIMIT 10",
    ),
    (
        "checks that warn",
        ("check", "rows"),
        f"SELECT script, broken_by {LATEST} AND broken_by > 0 ORDER BY job, script",
    ),
)


ERRORS = """
    SELECT format('run %%s', run_id), error FROM (
        SELECT run_id, NULL AS recorded_at, '' AS job, error FROM elt.runs
        UNION ALL
        SELECT run_id, recorded_at, job, job || ': ' || error FROM elt.job_runs WHERE status = 'failed'
    ) AS failures
    WHERE error IS NOT NULL AND run_id IN (SELECT run_id FROM elt.recent_runs LIMIT %(runs)s)
    ORDER BY run_id DESC, recorded_at NULLS FIRST, job
"""
