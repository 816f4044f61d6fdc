"""Records in schema elt what each run did.

Published jobs are recorded on the publishing connection, inside the publish transaction. Failed jobs are recorded on
another connection, so that a rollback does not lose the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from psycopg2.extras import execute_values

from lib.config.jobs import Job
from lib.errors import EltError
from lib.load.exports import StagedSlice
from lib.load.guards import Accepted, UndoneLoad
from lib.postgres.connection import Connection, execute, query
from lib.transform.scripts import ScriptResult


@dataclass(frozen=True)
class JobRecord:
    """One row of elt.job_runs. Rows are None if nothing was loaded."""

    job: str
    status: str
    rows_loaded: int | None = None
    rows_before: int | None = None
    source_version: str | None = None
    #: guards that the user accepted
    accepted: tuple[str, ...] = ()
    stage_seconds: float | None = None
    publish_seconds: float | None = None
    error: str | None = None
    scripts: tuple[ScriptResult, ...] = ()
    source_imported_at: datetime | None = None
    #: source columns that no bronze column takes
    unused_columns: tuple[str, ...] | None = None
    #: what the bronze table holds now (`difference.Difference.fingerprint`)
    bronze_fingerprint: str | None = None
    #: whether nothing was exported, because the source was what an earlier run loaded; None: the job loads nothing here
    is_unchanged: bool | None = None
    slices: tuple[StagedSlice, ...] = ()


#: Put in front of each statement that writes to these tables, and sent with it as one query, which is one transaction.
#: It refuses triggers of strangers on these tables; the lock keeps new ones away until the transaction ends.
TABLES = (
    *("elt.runs", "elt.job_runs", "elt.script_runs", "elt.slices", "elt.definitions", "elt.table_states"),
    "elt.changes",
)
WRITING = (
    f"LOCK TABLE {', '.join(TABLES)} IN ROW EXCLUSIVE MODE;"
    f" SELECT elt._refuse_triggers(ARRAY{[*TABLES]}::regclass[]);"
)

#: After a restore the sequence may be behind, and the next run would get a number that is taken.
NEXT_RUN_ID = """
    SELECT setval(sequence, newest)
    FROM (
        SELECT pg_get_serial_sequence('elt.runs', 'run_id')::regclass AS sequence, max(run_id) AS newest FROM elt.runs
    ) AS numbers
    WHERE newest > coalesce(pg_sequence_last_value(sequence), 0);
"""

#: names its columns, because a column that was dropped and added again is the last one
INSERT_SCRIPTS = (
    "INSERT INTO elt.script_runs"
    " (run_id, job, script, seconds, inserted, updated, deleted, unchanged, broken_by) VALUES %s"
)
INSERT_SLICES = (
    "INSERT INTO elt.slices"
    " (run_id, job, number, name, source_job, source_file, bytes, rows, seconds, tries) VALUES %s"
)


def begin_run(connection: Connection, jobs: Sequence[str], process: str, run_date: date, kind: str = "run") -> int:
    """Insert a new run of this kind (run, preview or undo) and return its number.

    Runs that still have status running are set to lost: we hold the run lock, so their processes have ended.
    """
    ((run_id,),) = query(
        connection,
        WRITING + "UPDATE elt.runs SET status = 'lost', finished_at = now(),"
        " error = coalesce(error, 'the process ended before it recorded a result')"
        " WHERE status = 'running';"
        + NEXT_RUN_ID
        + "INSERT INTO elt.runs (status, run_date, started_at, jobs, process, kind)"
        " VALUES ('running', %s, now(), %s, %s, %s) RETURNING run_id",
        (run_date, list(jobs), process, kind),
    )
    return int(run_id)


def first_published(connection: Connection) -> date | None:
    """The earliest day of a run that published a job; None if there is none."""
    first: date | None
    ((first,),) = query(
        connection,
        "SELECT min(run_date) FROM elt.runs"
        " WHERE run_id IN (SELECT run_id FROM elt.job_runs WHERE status = 'published')",
    )
    return first


def name_source(connection: Connection, run_id: int, source: str) -> None:
    execute(connection, WRITING + "UPDATE elt.runs SET source = %s WHERE run_id = %s", (_storable(source), run_id))


def end_run(
    connection: Connection,
    run_id: int,
    status: str,
    error: str | None = None,
    *,
    inputs: str | None = None,
    is_unchanged: bool = False,
) -> bool:
    """Record how a run ended, unless its end is recorded already: a status that a publish committed is kept.

    inputs: what the run made the tables from, if all of them are up to date. is_unchanged: nothing was published,
    because nothing had changed.

    Also called inside the publish transaction, so that a run whose data were published is never marked as lost. Returns
    whether the run was still running.
    """
    ended = execute(
        connection,
        WRITING + "UPDATE elt.runs SET status = %s, finished_at = clock_timestamp(), error = %s, inputs_md5 = %s,"
        " is_unchanged = %s WHERE run_id = %s AND status = 'running'",
        (status, _storable(error), inputs, is_unchanged, run_id),
    )
    return ended == 1


def ended_as(connection: Connection, run_id: int) -> str:
    """The status of a run. FOR UPDATE waits for a pending COMMIT, during which a plain SELECT would still see running.

    pg_xact_status is not used: after a failover the same transaction id may be that of another transaction. If the row
    does not exist (also after a failover), the run is lost.
    """
    rows = query(connection, "SELECT status FROM elt.runs WHERE run_id = %s FOR UPDATE", (run_id,))
    return rows[0][0] if rows else "lost"


def _storable(text: str | None) -> str | None:
    """Text that PostgreSQL can store. A source's message may contain a NUL or half a surrogate pair."""
    return text and text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def record_jobs(connection: Connection, run_id: int, records: Iterable[JobRecord]) -> None:
    """Insert one row per job, one per script that it ran, and one per slice that it loaded."""
    for record in records:
        execute(
            connection,
            WRITING + """
            INSERT INTO elt.job_runs (
                run_id, job, status, recorded_at, rows_loaded, rows_before, source_version, source_imported_at,
                unused_columns, bronze_fingerprint, is_unchanged, accepted_shrink, accepted_guards, stage_seconds,
                publish_seconds, error
            ) VALUES (
                %s, %s, %s, clock_timestamp(), %s, %s, %s, %s,
                %s, %s, %s, %s, %s, round(%s::numeric, 3), round(%s::numeric, 3), %s
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
                record.bronze_fingerprint,
                record.is_unchanged,
                "shrink" in record.accepted,
                list(record.accepted),
                record.stage_seconds,
                record.publish_seconds,
                _storable(record.error),
            ),
        )
        rows = [
            (
                run_id,
                record.job,
                result.path,
                round(result.seconds, 3),
                *(result.row_counts or (None,) * 4),
                result.broken_by,
            )
            for result in record.scripts
        ]
        slices = [
            (
                run_id,
                record.job,
                each.number,
                _storable(each.name),
                _storable(each.source_job),
                _storable(each.source_file),
                each.bytes,
                each.rows,
                round(each.seconds, 3),
                each.tries,
            )
            for each in record.slices
        ]
        with connection.cursor() as cursor:
            if rows:
                execute_values(cursor, WRITING + INSERT_SCRIPTS, rows)
            if slices:
                execute_values(cursor, WRITING + INSERT_SLICES, slices)


@dataclass(frozen=True)
class LastLoad:
    """A job's source table as it was when the job last published here."""

    version: str
    #: source columns that no bronze column takes; empty for runs of older versions, which did not record them
    unused_columns: frozenset[str]
    run_id: int
    #: what the bronze table held then; None: unknown, as for runs of older versions
    bronze_fingerprint: str | None


def last_loads(connection: Connection) -> dict[str, LastLoad]:
    """The last published load of each job that was ever loaded, by job."""
    rows = query(
        connection,
        "SELECT DISTINCT ON (job) job, source_version, unused_columns, run_id, bronze_fingerprint FROM elt.job_runs"
        " WHERE status = 'published' AND source_version IS NOT NULL ORDER BY job, run_id DESC",
    )
    return {
        job: LastLoad(version, frozenset(unused or ()), run_id, fingerprint)
        for job, version, unused, run_id, fingerprint in rows
    }


@dataclass(frozen=True)
class LeftState:
    """The state in which a run left a table that it loaded (`table_states`), and what it loaded."""

    run_id: int
    state: str
    version: str
    rows: int


def left_states(connection: Connection, source: str) -> dict[str, LeftState]:
    """The state of each bronze table after its last load, if its rows came from this source."""
    rows = query(
        connection,
        "SELECT relation, run_id, state, source_version, rows_loaded"
        " FROM elt.table_states JOIN elt.job_runs USING (run_id, job) JOIN elt.runs USING (run_id)"
        " WHERE job_runs.status = 'published' AND rows_loaded IS NOT NULL AND source_version IS NOT NULL"
        " AND source = %s",
        (_storable(source),),
    )
    return {relation: LeftState(*left) for relation, *left in rows}


def last_change(connection: Connection) -> int | None:
    """The last run that published a change and was not taken back: the one that an undo takes back."""
    found: int | None
    ((found,),) = query(
        connection,
        "SELECT max(run_id) FROM elt.job_runs"
        " WHERE status = 'published' AND run_id IN (SELECT run_id FROM elt.changes)",
    )
    return found


def begin_undo(connection: Connection, undone_run_id: int, process: str) -> int:
    """Insert a run of kind undo and return its number. Its day is that of the last run before the one it takes back."""
    ((day,),) = query(
        connection,
        "SELECT run_date FROM elt.runs WHERE run_id = %(undone)s OR run_id IN ("
        "SELECT run_id FROM elt.job_runs WHERE status = 'published' AND run_id < %(undone)s)"
        " ORDER BY run_id = %(undone)s, run_id DESC LIMIT 1",
        {"undone": undone_run_id},
    )
    return begin_run(connection, [], process, day, "undo")


def end_undo(connection: Connection, run_id: int, undone_run_id: int) -> None:
    """Record what a run of kind undo took back: that run, and later ones, which published without a change.

    Their jobs are no longer published, so whatever reads the last load finds the one before.
    """
    execute(
        connection,
        WRITING + "UPDATE elt.job_runs SET status = 'undone' WHERE status = 'published' AND run_id >= %(undone)s;"
        " UPDATE elt.runs SET undone_run_id = %(undone)s WHERE run_id = %(run)s",
        {"undone": undone_run_id, "run": run_id},
    )
    end_run(connection, run_id, "done")


def undone_jobs(connection: Connection, run_id: int) -> set[str]:
    """The jobs of a run that was taken back."""
    rows = query(connection, "SELECT job FROM elt.job_runs WHERE status = 'undone' AND run_id = %s", (run_id,))
    return {job for (job,) in rows}


#: what was taken back of each job since its last load that still counts
UNDONE = """
    SELECT
        job,
        -- as undo named it: later runs, which changed no row, went with it
        coalesce((SELECT max(undone_run_id) FROM elt.runs WHERE undone_run_id <= max(undone.run_id)), max(run_id)),
        array_agg(source_version),
        (
            SELECT source_version
            FROM elt.job_runs AS last
            WHERE last.job = undone.job AND status = 'published' AND source_version IS NOT NULL
            ORDER BY run_id DESC LIMIT 1
        ),
        bool_or(EXISTS (
            SELECT FROM elt.script_runs AS script
            WHERE script.run_id = undone.run_id AND script.job = undone.job AND inserted + updated + deleted > 0
        ))
    FROM elt.job_runs AS undone
    WHERE status = 'undone' AND NOT EXISTS (
        SELECT FROM elt.job_runs AS later
        WHERE later.job = undone.job AND later.run_id > undone.run_id AND later.status = 'published'
            AND (undone.source_version IS NULL OR later.source_version IS NOT NULL)
    )
    GROUP BY job
"""


def undone_loads(connection: Connection, groups: Iterable[Sequence[str]]) -> dict[str, UndoneLoad]:
    """By job: what was loaded since its last load that still counts, and taken back.

    groups: of the registry. One in which nothing was taken back, because its sources were the same and its scripts
    changed no row, is left out.
    """
    rows = {job: found for job, *found in query(connection, UNDONE)}
    loads: dict[str, UndoneLoad] = {}
    for group in groups:
        found = {job: rows[job] for job in group if job in rows}
        of_group = {
            job: UndoneLoad(run_id, frozenset(filter(None, versions)), before)
            for job, (run_id, versions, before, _) in found.items()
            if any(versions)
        }
        if any(has_changes for *_, has_changes in found.values()) or any(
            load.versions - {load.version_before} for load in of_group.values()
        ):
            loads |= of_group
    return loads


def failure_records(group: Sequence[Job], failed: Mapping[str, EltError], accepted: Accepted) -> list[JobRecord]:
    """Records of a group that is not published: the failed jobs with their errors, the others as held back."""
    culprits = ", ".join(job.name for job in group if job.name in failed)
    return [
        (
            JobRecord(job.name, "failed", accepted=accepted.of(job.name), error=str(failed[job.name]))
            if job.name in failed
            else JobRecord(
                job.name,
                "held back",
                accepted=accepted.of(job.name),
                error=f"{culprits} failed, and a group publishes whole or not at all",
            )
        )
        for job in group
    ]
