"""The publish transaction: staged rows into bronze, then silver, gold and checks; a group whole or not at all.

Inside a group, jobs run in dependency order: bronze definitions, load, silver. Changed gold definitions come after the
last silver script, because they lock readers out of their view until the commit; then the checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from lib import history
from lib.database import Connection, LockTimeout, execute, holds_run_lock, query, reset, transaction, translated
from lib.errors import CheckFailed, DatabaseError, EltError, LoadError, ScriptError
from lib.guards import Accepted
from lib.history import SCHEMAS, JobRecord
from lib.jobs import Job, Script
from lib.loader import publish_bronze
from lib.plan import lock_what_is_written, named_in
from lib.stager import Staged
from lib.strangers import Name, ScriptPath, creators, refuse_strangers, refuse_triggers
from lib.transformer import ScriptResult, broken_claim, replacement_help, run_check, run_script


@dataclass(frozen=True)
class Published:
    """What one publish transaction did. `locked` are the relations that readers had to wait for, with seconds."""

    records: tuple[JobRecord, ...]
    #: qualified names of the tables that were written
    written: tuple[str, ...]
    locked: tuple[tuple[str, str, float], ...]
    notes: tuple[tuple[str, str], ...]


class _JobFailed(Exception):
    """Which job of a group failed; only the group's savepoint catches it."""

    def __init__(self, job: Job, error: EltError) -> None:
        super().__init__(str(error))
        self.job = job
        self.error = error


@dataclass
class Publisher:
    """Publishes groups on the connection that holds the run lock."""

    connection: Connection
    run_id: int
    staged: Mapping[str, Staged]
    accepted: Accepted
    path: ScriptPath
    #: seconds; see database.transaction
    lock_timeout: float
    run_date: date
    check_stop: Callable[[], None]
    told: Callable[[str, ScriptResult], None] = lambda job, result: None
    loaded: Callable[[str, str, int, float], None] = lambda job, table, rows, seconds: None
    #: told of each script, load and check before it runs
    begins: Callable[[str], None] = lambda what: None
    #: what COMMIT publishes, known before it is sent: its answer may be lost
    outcome: Published | None = None
    _records: dict[str, JobRecord] = field(default_factory=dict)
    _notes: list[tuple[str, str]] = field(default_factory=list)
    _locked: dict[str, tuple[str, float]] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _named: frozenset[Name] = frozenset()
    _watchful: bool = False

    def publish(
        self,
        groups: Sequence[Sequence[Job]],
        earlier: Mapping[str, EltError],
        in_the_way: Callable[[], str],
        *,
        last_try: bool,
    ) -> Published:
        """Publish every group that has no job in `earlier`, in one transaction; `in_the_way` says who holds a lock.

        Raises LockTimeout while there are tries left, so that the whole publish is repeated; on the last try the
        group that met it fails alone. Raises DatabaseError where the run lock is no longer ours.
        """
        failed: dict[str, EltError] = dict(earlier)
        self._locked, self._notes = {}, []
        records: list[JobRecord] = []
        with (
            translated("publish"),
            transaction(
                self.connection, lock_timeout=self.lock_timeout, run_date=self.run_date, search_path=self.path.path
            ),
        ):
            if not holds_run_lock(self.connection):
                raise DatabaseError(
                    "this run no longer holds the run lock, so another may be at work:"
                    " nothing was published. Run again."
                )
            # owners were asked before the export; where strangers may create, something new may be there at any moment
            self._named = named_in(job for group in groups for job in group)
            self._watchful = bool(creators(self.connection, SCHEMAS))
            self._ask_owners()
            # deferred constraints speak where a job and a line can be named, and not at COMMIT
            execute(self.connection, "SET CONSTRAINTS ALL IMMEDIATE")
            known = self._published_relations()
            for group in groups:
                if any(job.name in failed for job in group):
                    records += given_up(group, failed, self.accepted)
                    continue
                try:
                    records += self._publish_group(group, known)
                except _JobFailed as failure:
                    error = failure.error
                    if isinstance(error, LockTimeout):
                        error = LockTimeout(f"{error}; {in_the_way() or 'who held it has let go since'}")
                        if not last_try:
                            raise error from failure
                    failed[failure.job.name] = error
                    records += given_up(group, failed, self.accepted)
            written = tuple(sorted(self._changes()))
            if not history.end_run(self.connection, self.run_id, "failed" if failed else "done"):
                raise DatabaseError(
                    f"somebody changed row {self.run_id} of elt.runs while it ran: nothing was published. Run again."
                )
            ended = time.monotonic()
            locked = tuple((relation, script, ended - since) for relation, (script, since) in self._locked.items())
            self.outcome = Published(tuple(records), written, locked, tuple(self._notes))
        return self.outcome

    # ---- one group --------------------------------------------------------------------------------------------------

    def _publish_group(self, group: Sequence[Job], known: list[int]) -> list[JobRecord]:
        locked, notes = dict(self._locked), list(self._notes)
        execute(self.connection, "SAVEPOINT elt_group")
        self._seen = self._changes()
        try:
            return self._publish_jobs(group, known)
        except _JobFailed:
            self._locked, self._notes = locked, notes
            if not self.connection.closed:
                execute(self.connection, "ROLLBACK TO SAVEPOINT elt_group; RELEASE SAVEPOINT elt_group")
            raise

    def _publish_jobs(self, group: Sequence[Job], known: list[int]) -> list[JobRecord]:
        self._records = {job.name: JobRecord(job.name, "published") for job in group}
        for step in (self._load_and_refine, self._define_gold, self._run_checks):
            for job in group:
                began = time.monotonic()
                try:
                    with translated(job.name, ScriptError):
                        step(job, known)
                except (ScriptError, LoadError, CheckFailed, LockTimeout) as error:
                    self.check_stop()
                    if help_with_path := self.path.help(error):
                        error = ScriptError(f"{error}{help_with_path}")
                    raise _JobFailed(job, error) from error
                record = self._records[job.name]
                seconds = (record.publish_seconds or 0.0) + time.monotonic() - began
                self._records[job.name] = replace(record, publish_seconds=seconds)
        records = list(self._records.values())
        history.record_jobs(self.connection, self.run_id, records)
        execute(self.connection, "RELEASE SAVEPOINT elt_group")
        return records

    def _load_and_refine(self, job: Job, known: list[int]) -> None:
        staged = self.staged.get(job.name)
        self._lock_targets(job, staged is not None)
        if staged is not None:
            self._define(job, "bronze", known)
            self._load(job, staged)
        for script in job.transform:
            if script.layer == "silver":
                self._run(job, script, known)
        execute(self.connection, "DISCARD TEMP")

    def _define_gold(self, job: Job, known: list[int]) -> None:
        self._define(job, "gold", known)

    def _run_checks(self, job: Job, _known: list[int]) -> None:
        for check in job.checks:
            self._reset()
            self.begins(check.script.path)
            result = run_check(self.connection, check)
            self._keep(job, result)
            if result.broken_by:
                text = f"{check.script.path}: {broken_claim(result.broken_by)}; a warning, so the job is published"
                self._notes.append((job.name, text))

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _lock_targets(self, job: Job, loads: bool) -> None:
        """Keep other writers and index builders away from the start: upgrading a lock later would deadlock with them.

        Then look at the triggers that are there.
        """
        self._reset()
        with translated("before anything is written", ScriptError):
            lock_what_is_written(self.connection, job, loads=loads)
            refuse_triggers(self.connection, ("bronze", "silver"), [], self._named - named_in([job]))

    def _define(self, job: Job, layer: str, known: list[int]) -> None:
        """Apply each definition of a layer that is new here, or that somebody dropped or replaced."""
        scripts = [script for script in job.transform if script.layer == layer]
        while scripts:
            self._reset()
            # asked again after each, for one may have dropped what a later one made
            pending = history.not_applied(self.connection, scripts)
            if not pending:
                break
            self._apply(job, pending[0], known)
            scripts = scripts[scripts.index(pending[0]) + 1 :]

    def _apply(self, job: Job, script: Script, known: list[int]) -> None:
        execute(self.connection, "SAVEPOINT elt_definition")
        self.begins(script.path)
        try:
            result = run_script(self.connection, script)
        except ScriptError as error:
            execute(self.connection, "ROLLBACK TO SAVEPOINT elt_definition")
            raise ScriptError(f"{error}{replacement_help(self.connection, script, error)}") from error
        execute(self.connection, "RELEASE SAVEPOINT elt_definition")
        history.record_definition(self.connection, self.run_id, script)
        self._look_at_locks(script, known)
        self._keep(job, result)

    def _load(self, job: Job, staged: Staged) -> None:
        began = time.monotonic()
        self._reset()
        self.begins(job.target.table)
        loaded = publish_bronze(self.connection, job, staged.contract, staged.staging, staged.rows, self.accepted)
        self._new_changes()  # publish_bronze has seen to their statistics
        self._records[job.name] = replace(
            self._records[job.name],
            rows_loaded=loaded.rows,
            rows_before=loaded.rows_before,
            source_version=staged.source.version,
            source_imported_at=staged.source.imported_at,
            unused_columns=staged.unused_columns,
            accepted=self.accepted.of(job),
            stage_seconds=staged.seconds,
        )
        self.loaded(job.name, job.target.table, loaded.rows, time.monotonic() - began)

    def _run(self, job: Job, script: Script, known: list[int]) -> None:
        self._reset()
        self.begins(script.path)
        result = run_script(self.connection, script)
        changes = self._new_changes()
        result = replace(result, changed_rows=sum(changes.values()))
        if sum((result.news or ())[:3]) != sum(changes.values()):  # elt.publish_rows analyses what it changes
            self._analyze(changes)
        self._look_at_locks(script, known)
        self._keep(job, result)

    def _keep(self, job: Job, result: ScriptResult) -> None:
        record = self._records[job.name]
        self._records[job.name] = replace(record, scripts=(*record.scripts, result))
        self.told(job.name, result)

    def _reset(self) -> None:
        self.check_stop()
        self._ask_owners()
        reset(self.connection, lock_timeout=self.lock_timeout, run_date=self.run_date, search_path=self.path.path)

    def _ask_owners(self) -> None:
        """Where a stranger may create in one of our schemas, see that nothing new there is what scripts name."""
        if self._watchful:
            refuse_strangers(self.connection, self._named)

    # ---- what the transaction did so far ----------------------------------------------------------------------------

    def _published_relations(self) -> list[int]:
        """What readers could already see; what this transaction makes itself nobody waits for."""
        rows = query(
            self.connection,
            "SELECT oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = ANY (ARRAY["
            "to_regnamespace('bronze'), to_regnamespace('silver'), to_regnamespace('gold')]::oid[])",
        )
        return [oid for (oid,) in rows]

    def _look_at_locks(self, script: Script, known: list[int]) -> None:
        """Remember each published relation that readers cannot read from now on, and the script that did it."""
        now = time.monotonic()
        for (relation,) in query(
            self.connection,
            "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND granted"
            " AND mode = 'AccessExclusiveLock' AND relation = ANY (%s::oid[])",
            (known,),
        ):
            self._locked.setdefault(relation, (script.path, now))

    def _changes(self) -> dict[str, int]:
        """Rows that this transaction inserted, updated and deleted so far, by table."""
        return dict(
            query(
                self.connection,
                # as pg_stat_xact_user_tables counts, without all else that this view looks up
                "SELECT format('%I.%I', nspname, relname), changed FROM pg_class"
                " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
                " CROSS JOIN LATERAL (SELECT pg_stat_get_xact_tuples_inserted(pg_class.oid)"
                " + pg_stat_get_xact_tuples_updated(pg_class.oid) + pg_stat_get_xact_tuples_deleted(pg_class.oid)"
                " AS changed) AS counted"
                " WHERE relkind IN ('r', 'm') AND nspname !~ '^(pg_|elt|information_schema)' AND changed > 0",
            )
        )

    def _analyze(self, changes: Mapping[str, int]) -> None:
        """Fresh statistics, for the next script, on each table that changed by more than a tenth: autovacuum's rule."""
        for table, rows in changes.items():
            ((estimated,),) = query(
                self.connection, "SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table,)
            )
            if rows > max(estimated, 0) / 10:
                execute(self.connection, f"ANALYZE {table}")

    def _new_changes(self) -> dict[str, int]:
        """The same, but only what came since this was asked last."""
        before, self._seen = self._seen, self._changes()
        return {table: rows - before.get(table, 0) for table, rows in self._seen.items() if rows != before.get(table)}


def given_up(group: Sequence[Job], failed: Mapping[str, EltError], accepted: Accepted) -> list[JobRecord]:
    """Records of a group that stays as it was: the failed jobs with their errors, the others held back by them."""
    culprits = ", ".join(job.name for job in group if job.name in failed)
    return [
        (
            JobRecord(job.name, "failed", accepted=accepted.of(job), error=str(failed[job.name]))
            if job.name in failed
            else JobRecord(
                job.name,
                "held back",
                accepted=accepted.of(job),
                error=f"{culprits} failed, and a group publishes whole or not at all",
            )
        )
        for job in group
    ]
