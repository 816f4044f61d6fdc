"""Schema elt: installs it, and records in it what each run did and which definitions hold.

What was published is recorded on the publishing connection, inside the publish transaction; what failed, on another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import psycopg2
from psycopg2.extras import execute_values

from lib.database import Connection, execute, query, transaction, translate
from lib.errors import DatabaseError
from lib.registry import Script
from lib.strangers import of_others
from lib.transformer import ScriptResult

#: every file in it is installed, in the order of their names; each may run again over what an older one made
FOLDER = Path(__file__).parent / "elt"
#: what they make
MADE = re.compile(r"^CREATE (?:OR REPLACE )?(?:TABLE IF NOT EXISTS|VIEW|FUNCTION) elt\.(\w+)", re.MULTILINE)
SCHEMAS = ("elt", "elt_staging", "bronze", "silver", "gold")


@dataclass(frozen=True)
class JobRecord:
    """One row of elt.job_runs; seconds as floats, rows None where nothing was loaded."""

    job: str
    status: str
    rows_loaded: int | None = None
    rows_before: int | None = None
    source_version: str | None = None
    #: guards that a person accepted
    accepted: tuple[str, ...] = ()
    stage_seconds: float | None = None
    publish_seconds: float | None = None
    error: str | None = None
    scripts: tuple[ScriptResult, ...] = ()
    source_imported_at: datetime | None = None
    #: columns of the source that bronze did not ask for
    unused_columns: tuple[str, ...] | None = None


# ---- installing -----------------------------------------------------------------------------------------------------


def install(connection: Connection) -> None:
    """Bring schema elt and the layers' schemas up to date; takes no lock when there is nothing to do.

    Called under the run lock: two CREATE OR REPLACE at once fail with "tuple concurrently updated".
    Raises DatabaseError with what an administrator must run where a right is missing.
    """
    texts = [file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.sql"))]
    # on a table, since the schemas may belong to an administrator
    mark = f"One row per run of the pipeline (schema elt as of {hashlib.md5(''.join(texts).encode()).hexdigest()})."
    try:
        if missing := missing_rights(connection) + of_others(connection, (), usable=True):
            raise DatabaseError("\n    ".join(["the role lacks rights that every run needs", *missing]))
        _create_schemas(connection)
        if query(
            connection,
            "SELECT obj_description(to_regclass('elt.runs'), 'pg_class') = %s AND NOT EXISTS ("
            " SELECT FROM unnest(%s::text[]) AS name WHERE to_regclass('elt.' || name) IS NULL AND NOT EXISTS ("
            " SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace('elt')))",
            (mark, sorted(set(MADE.findall("".join(texts))))),
        )[0][0]:
            return
        with transaction(connection, lock_timeout=5):
            for text in texts:
                execute(connection, text)
            execute(connection, "COMMENT ON TABLE elt.runs IS %s", (mark,))
    except psycopg2.Error as error:
        raise translate(error, "cannot install schema elt") from error


def install_what_is_missing(connection: Connection) -> None:
    """Schemas that are not there, and schema elt where it is missing or old: for a transaction that is rolled back."""
    _create_schemas(connection)
    if query(connection, "SELECT to_regproc('elt._refuse_triggers')")[0][0] is None:
        for file in sorted(FOLDER.glob("*.sql")):
            execute(connection, file.read_text(encoding="utf-8"))


def _create_schemas(connection: Connection) -> None:
    for (schema,) in query(
        connection, "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regnamespace(name) IS NULL", ([*SCHEMAS],)
    ):
        execute(connection, f"CREATE SCHEMA {schema}")


def missing_rights(connection: Connection) -> list[str]:
    """Each right to the pipeline's schemas that the role lacks, with the statement that an administrator runs."""
    role, database, may_create, may_use_temporary = query(
        connection,
        "SELECT quote_ident(current_user), quote_ident(current_database()),"
        " has_database_privilege(current_database(), 'CREATE'),"
        " has_database_privilege(current_database(), 'TEMPORARY')",
    )[0]
    missing = []
    for schema in SCHEMAS:
        exists, usage, create = query(
            connection,
            "SELECT oid IS NOT NULL, has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')"
            " FROM (SELECT to_regnamespace(%s)::oid AS oid) AS found",
            (schema,),
        )[0]
        if not exists and not may_create:
            missing.append(f"schema {schema} does not exist: CREATE SCHEMA {schema} AUTHORIZATION {role};")
        elif exists and not (usage and create):
            missing.append(f"no right to use schema {schema}: GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};")
    if not may_use_temporary:
        missing.append(f"no right to temporary tables: GRANT TEMPORARY ON DATABASE {database} TO {role};")
    return missing


# ---- runs -----------------------------------------------------------------------------------------------------------


#: sent in front of what a statement writes, in the same query, which is one transaction: no trigger of a stranger is on
#: these tables, and none comes until the end of it
WRITING = (
    "LOCK TABLE elt.runs, elt.job_runs, elt.script_runs, elt.definitions IN ROW EXCLUSIVE MODE;"
    " SELECT elt._refuse_triggers(ARRAY['elt.runs', 'elt.job_runs', 'elt.script_runs', 'elt.definitions']::regclass[]);"
)


def begin_run(connection: Connection, jobs: Sequence[str], process: str, run_date: date) -> int:
    """A new run's number. Runs still called running are lost, for we hold the lock."""
    ((run_id,),) = query(
        connection,
        WRITING + "UPDATE elt.runs SET status = 'lost', finished_at = now(),"
        " error = coalesce(error, 'the process ended without a word')"
        " WHERE status = 'running';"
        "INSERT INTO elt.runs (status, run_date, started_at, jobs, process) VALUES ('running', %s, now(), %s, %s)"
        " RETURNING run_id",
        (run_date, list(jobs), process),
    )
    return int(run_id)


def name_source(connection: Connection, run_id: int, source: str) -> None:
    execute(connection, WRITING + "UPDATE elt.runs SET source = %s WHERE run_id = %s", (_storable(source), run_id))


def end_run(connection: Connection, run_id: int, status: str, error: str | None = None) -> bool:
    """Write down how a run ended, unless that was done before: what a publish committed stays.

    Also called inside the publish transaction, so that a run is never called lost whose data are there. Returns whether
    the run was still running.
    """
    ended = execute(
        connection,
        WRITING + "UPDATE elt.runs SET status = %s, finished_at = clock_timestamp(), error = %s"
        " WHERE run_id = %s AND status = 'running'",
        (status, _storable(error), run_id),
    )
    return ended == 1


def ended_as(connection: Connection, run_id: int) -> str:
    """The status of a run once no COMMIT of it is pending: a plain SELECT would still say running then.

    Not pg_xact_status: after a failover it speaks of somebody else's transaction. A server that does not know the run,
    after a failover, has lost it.
    """
    rows = query(connection, "SELECT status FROM elt.runs WHERE run_id = %s FOR UPDATE", (run_id,))
    return rows[0][0] if rows else "lost"


def _storable(text: str | None) -> str | None:
    """Text as PostgreSQL can hold it: what a source said may have a NUL or half a surrogate pair."""
    return text and text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def record_jobs(connection: Connection, run_id: int, records: Iterable[JobRecord]) -> None:
    """Write one row per job, and one per script that it ran."""
    for record in records:
        execute(
            connection,
            WRITING + """
            INSERT INTO elt.job_runs (
                run_id, job, status, recorded_at, rows_loaded, rows_before, source_version, source_imported_at,
                unused_columns, accepted_shrink, accepted_guards, stage_seconds, publish_seconds, error
            ) VALUES (
                %s, %s, %s, clock_timestamp(), %s, %s, %s, %s,
                %s, %s, %s, round(%s::numeric, 3), round(%s::numeric, 3), %s
            )
            """,
            (
                run_id,
                record.job,
                record.status,
                record.rows_loaded,
                record.rows_before,
                record.source_version,
                record.source_imported_at,
                [_storable(name) for name in record.unused_columns] if record.unused_columns else None,
                "shrink" in record.accepted,
                list(record.accepted),
                record.stage_seconds,
                record.publish_seconds,
                _storable(record.error),
            ),
        )
        rows = [
            (run_id, record.job, result.path, round(result.seconds, 3), *(result.news or (None,) * 4), result.broken_by)
            for result in record.scripts
        ]
        with connection.cursor() as cursor:
            if rows:
                execute_values(cursor, WRITING + "INSERT INTO elt.script_runs VALUES %s", rows)


@dataclass(frozen=True)
class LastLoad:
    """What a job's source table was when it was last published here."""

    version: str
    #: columns that bronze did not ask for; empty for runs of older versions, which did not record them
    unused_columns: frozenset[str]


def last_loads(connection: Connection) -> dict[str, LastLoad]:
    """By job, for each that ever loaded."""
    rows = query(
        connection,
        "SELECT DISTINCT ON (job) job, source_version, unused_columns FROM elt.job_runs"
        " WHERE status = 'published' AND source_version IS NOT NULL ORDER BY job, run_id DESC",
    )
    return {job: LastLoad(version, frozenset(unused or ())) for job, version, unused in rows}


# ---- definitions ----------------------------------------------------------------------------------------------------

VIEW_MD5 = "(SELECT md5(pg_get_viewdef(oid)) FROM pg_class WHERE oid = to_regclass({}) AND relkind IN ('v', 'm'))"


def not_applied(connection: Connection, scripts: Sequence[Script]) -> list[Script]:
    """Those whose very text was not applied here, or whose relation is no longer as they made it."""
    if query(connection, "SELECT to_regclass('elt.definitions')") == [(None,)]:
        return list(scripts)
    applied = query(
        connection,
        f"""
        SELECT script
        FROM elt.definitions
        JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (script, text, relation) USING (script)
        WHERE script_md5 = md5(text)
          AND to_regclass(relation) IS NOT NULL
          AND view_md5 IS NOT DISTINCT FROM {VIEW_MD5.format("relation")}
        """,
        (
            [script.path for script in scripts],
            [script.text for script in scripts],
            [script.relation for script in scripts],
        ),
    )
    return [script for script in scripts if (script.path,) not in applied]


def record_definition(connection: Connection, run_id: int, script: Script) -> None:
    """Remember a script that has just been applied, in the same savepoint."""
    execute(
        connection,
        f"""
        INSERT INTO elt.definitions
        VALUES (%(script)s, md5(%(text)s), {VIEW_MD5.format("%(relation)s")}, %(run_id)s, clock_timestamp())
        ON CONFLICT (script) DO UPDATE
        SET script_md5 = excluded.script_md5, view_md5 = excluded.view_md5,
            run_id = excluded.run_id, applied_at = excluded.applied_at
        """,
        {"script": script.path, "text": script.text, "relation": script.relation, "run_id": run_id},
    )
