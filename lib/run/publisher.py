"""The publish transaction: staged rows into bronze, then silver, gold and checks. A group is published as a whole or
not at all.

Inside a group, jobs run in dependency order: bronze definitions, load, silver. Changed gold definitions are applied
after the last silver script, because readers of such a view must wait from then until the commit. Checks run last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg2

from lib.config.jobs import Job, Load, Script
from lib.elt_schema.installation import SCHEMAS
from lib.elt_schema.strangers import Name, creators, refuse_strangers, refuse_triggers
from lib.errors import CheckFailed, DatabaseError, EltError, LoadError, LockTimeout, ScriptError
from lib.load.bronze import publish_bronze
from lib.load.difference import was_edited
from lib.load.exports import Staged, Unchanged
from lib.load.guards import Accepted
from lib.postgres.connection import execute
from lib.postgres.driver_errors import translated
from lib.postgres.maintenance import analyze_if_changed
from lib.postgres.run_lock import holds_run_lock
from lib.postgres.transaction import apply_settings, transaction
from lib.run import definitions, history
from lib.run.changes import note_first_fillings, note_other_statements
from lib.run.history import JobRecord, LastLoad, failure_records
from lib.run.listener import RunListener
from lib.run.preview import Preview, refuse_waits
from lib.run.reader_waits import LockWatch, ReaderWait
from lib.run.row_counter import Changed, RowCounter
from lib.run.session import LockRetry, Session
from lib.run.table_states import Named, StateRecorder
from lib.run.targets import lock_targets, named_in
from lib.stop import StopSignal
from lib.transform.checks import run_check
from lib.transform.replace_view import replacement_help
from lib.transform.scripts import ScriptResult, run_script
from lib.transform.view_properties import read_options, restore_options

#: classes of SQLSTATE: data exceptions, violated constraints, limits (PostgreSQL: "PostgreSQL Error Codes")
ABOUT_VALUES = ("22", "23", "54")
#: seconds for which a definition waits for its lock at least
SHORTEST_WAIT = 0.1


@dataclass(frozen=True)
class Published:
    """What one publish transaction did."""

    records: tuple[JobRecord, ...] = ()
    #: qualified names of the tables that were written
    written: tuple[str, ...] = ()
    waits: tuple[ReaderWait, ...] = ()
    #: (job, text): warnings to report
    notes: tuple[tuple[str, str], ...] = ()
    #: staging tables that a message about a failure names, so that the user can look at the rows
    kept: frozenset[str] = frozenset()
    #: after a preview: `StateRecorder.moved` of each try
    moved: tuple[tuple[str, str, str], ...] = ()


class AgainOnCopies(EltError):
    """A preview begins its publish again, because it would have locked readers out: now on copies of tables."""


class _JobFailed(Exception):
    """Says which job of a group failed. Never leaves this module: `publish` catches it after the group's rollback."""

    def __init__(self, job: Job, error: EltError) -> None:
        super().__init__(str(error))
        self.job = job
        self.error = error


@dataclass
class Publisher:
    """Publishes groups on the connection that holds the run lock."""

    session: Session
    retry: LockRetry
    #: by job
    staged: Mapping[str, Staged]
    #: by job: those that were not exported, because bronze holds their rows
    unchanged: Mapping[str, Unchanged]
    #: all jobs of the registry
    jobs: Sequence[Job]
    #: what a run of all jobs makes its tables from (`unchanged.inputs_md5`); None: this is a run of some jobs
    inputs: str | None
    accepted: Accepted
    listener: RunListener
    stop: StopSignal
    #: finds out what would change; then all of it is rolled back. None: this is no preview
    preview: Preview | None = None
    #: called with the name of each script, load and check before it runs
    on_begin: Callable[[str], None] = lambda step: None
    #: what COMMIT publishes; set before COMMIT is sent, because its answer may be lost
    outcome: Published | None = None
    #: records of the group that is being published, by job
    _records: dict[str, JobRecord] = field(default_factory=dict)
    _notes: list[tuple[str, str]] = field(default_factory=list)
    _named: frozenset[Name] = frozenset()
    #: by job
    _last_loads: Mapping[str, LastLoad] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    #: of each try of a preview
    _moved: list[tuple[str, str, str]] = field(default_factory=list)
    #: by the view that they make
    _gold: dict[str, Script] = field(default_factory=dict)
    #: whether a stranger may create objects in one of our schemas
    _watchful: bool = False

    def __post_init__(self) -> None:
        self.connection = self.session.connection
        self._settings = self.session.transaction_settings(self.retry.lock_timeout)

    def publish(
        self,
        groups: Sequence[Sequence[Job]],
        earlier: Mapping[str, EltError],
        in_the_way: Callable[[], str],
        *,
        last_try: bool,
    ) -> Published:
        """Publish every group that has no job in `earlier`, in one transaction. `in_the_way` says who holds a lock.

        Raises LockTimeout, so that the caller can repeat the whole publish; on the last try only the group that met the
        lock fails instead. Raises AgainOnCopies, so that the caller repeats it at once. Raises DatabaseError if the run
        lock is no longer ours.
        """
        failed: dict[str, EltError] = dict(earlier)
        records: list[JobRecord] = []
        notes: list[tuple[str, str]] = []
        with translated("publish"), transaction(self.connection, self._settings, commit=self.preview is None):
            self._begin(groups)
            self._kept = set()
            for group in groups:
                if not any(job.name in failed for job in group):
                    try:
                        records += self._publish_group(group)
                        notes += self._notes
                        continue
                    except _JobFailed as failure:
                        error = failure.error
                        if self.preview and self.preview.needs_copies(error):
                            self._moved += self._states.moved()
                            raise AgainOnCopies from failure
                        if isinstance(error, LockTimeout):
                            error = LockTimeout("; ".join(filter(None, (str(error), in_the_way()))))
                            if not last_try:
                                if self.preview:
                                    self._moved += self._states.moved()
                                raise error from failure
                        failed[failure.job.name] = self._with_rows(group, failure.job, error)
                records += failure_records(group, failed, self.accepted)
            written = tuple(sorted(self._counter.all()))
            note_first_fillings(self.connection, self.session.run_id)
            # a warning must be said again by the next run
            inputs = None if failed or notes else self.inputs
            self._record_states(records, whole=inputs is not None)
            status = "failed" if failed else "done"
            if not history.end_run(self.connection, self.session.run_id, status, inputs=inputs):
                raise DatabaseError(
                    f"row {self.session.run_id} of elt.runs was changed from outside during the run: nothing was"
                    " published. Run again."
                )
            if self.preview:
                self._end_preview(self.preview, records)
            waits, kept, moved = self._locks.waits(), frozenset(self._kept), tuple(self._moved)
            self.outcome = Published(tuple(records), written, waits, tuple(notes), kept, moved)
        return self.outcome

    def _end_preview(self, preview: Preview, records: Sequence[JobRecord]) -> None:
        """Let the preview look at what changed, before the rollback."""
        self._reset()
        done = {result.path for record in records if record.status == "published" for result in record.scripts}
        definitions = [
            script
            for job in self.jobs
            for script in (*job.of_layer("bronze"), *job.of_layer("gold"))
            if script.path in done
        ]
        preview.end(self.connection, self.session.run_id, definitions)
        self._moved += self._states.moved()

    def _record_states(self, records: Sequence[JobRecord], *, whole: bool) -> None:
        published = {record.job for record in records if record.status == "published"} & self.staged.keys()
        loads = {job.name: job.load.table for job in self.jobs if job.load}
        loaded = {loads[name]: name for name in published}
        self._states.record(self.session.run_id, loaded, set(loads.values()) - set(loaded), whole=whole)

    def _with_rows(self, group: Sequence[Job], job: Job, error: EltError) -> EltError:
        """The error with the names of the staging tables that the job's scripts read, if it is about values in them.

        These tables stay until the next run. Bronze does not have their rows: the group was rolled back.
        """
        cause = error.__cause__
        code = (cause.pgcode if isinstance(cause, psycopg2.Error) else None) or ""
        if not isinstance(error, CheckFailed) and code[:2] not in ABOUT_VALUES:
            return error
        named = named_in([job])
        names = [
            self.staged[load.job].staging.name
            for load in (job.load for job in group)
            if load and load.job in self.staged and (load.schema, load.name) in named
        ]
        if not names:
            return error
        self._kept.update(names)
        tables = ", ".join(f"elt_staging.{name}" for name in names)
        return type(error)(f"{error}\n    The rows as received are in {tables} until the next run.")

    def _begin(self, groups: Sequence[Sequence[Job]]) -> None:
        """Checks and settings before the first group. Raises DatabaseError."""
        if not holds_run_lock(self.connection):
            raise DatabaseError(
                "this run no longer holds the run lock, so another may be at work: nothing was published. Run again."
            )
        # owners were checked before the export; if strangers may create objects, check again now and before each step
        self._gold = {script.relation: script for group in groups for job in group for script in job.of_layer("gold")}
        self._named = named_in(job for group in groups for job in group)
        self._last_loads = history.last_loads(self.connection)
        self._watchful = bool(creators(self.connection, SCHEMAS))
        self._ask_owners()
        # so that a violated deferred constraint fails in its script, with job and line, and not at COMMIT
        execute(self.connection, "SET CONSTRAINTS ALL IMMEDIATE")
        # no stranger can put a trigger on elt.changes until the end
        execute(self.connection, history.WRITING)
        tables = frozenset(job.load.table for job in self.jobs if job.load and job.name in self.staged)
        is_partial = self.inputs is None and not self.preview
        named = Named(tables) if is_partial else Named.by_jobs(self.jobs, self.session.path.path)
        self._states = StateRecorder(self.connection, named)
        self._locks = LockWatch(self.connection)
        self._counter = RowCounter(self.connection)
        if self.preview:
            silver = [script for group in groups for job in group for script in job.of_layer("silver")]
            self.preview.begin(self.connection, self.session.run_id, self._named, silver, self._gold, self._start)
            self._reset()

    # ---- one group --------------------------------------------------------------------------------------------------

    def _publish_group(self, group: Sequence[Job]) -> list[JobRecord]:
        """Publish one group in a savepoint. Raises _JobFailed after everything that the group did was rolled back."""
        self._records = {job.name: self._record(job) for job in group}
        self._notes = []
        with self._savepoint():
            self._counter.new()
            for job in group:
                staged = self.staged.get(job.name)
                with self._job(job):
                    self._lock_targets(job, loads=staged is not None)
                if staged:
                    self._define([job], "bronze")
                with self._job(job):
                    if job.load and staged:
                        self._load(job.load, staged)
                    for script in job.of_layer("silver"):
                        self._start(script.path)
                        self._keep_silver(job, script, run_script(self.connection, script))
                    execute(self.connection, "DISCARD TEMP")
            self._define(group, "gold")
            for job in group:
                with self._job(job):
                    self._run_checks(job)
            records = list(self._records.values())
            history.record_jobs(self.connection, self.session.run_id, records)
        return records

    def _record(self, job: Job) -> JobRecord:
        """The record of a job that is about to be published."""
        record = JobRecord(job.name, "published")
        if (same := self.unchanged.get(job.name)) is None:
            return record
        return replace(
            record,
            source_version=same.source.version,
            source_imported_at=same.source.imported_at,
            unused_columns=same.unused_columns,
            bronze_fingerprint=last.bronze_fingerprint if (last := self._last_loads.get(job.name)) else None,
            is_unchanged=True,
        )

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        execute(self.connection, "SAVEPOINT elt_group")
        try:
            yield
        except _JobFailed:
            if not self.connection.closed:
                execute(self.connection, "ROLLBACK TO SAVEPOINT elt_group; RELEASE SAVEPOINT elt_group")
                self._locks.forget_released()
            raise
        execute(self.connection, "RELEASE SAVEPOINT elt_group")

    @contextmanager
    def _job(self, job: Job) -> Iterator[None]:
        """Run a step of one job: adds its seconds to the job's record; an error is raised as _JobFailed of this job."""
        began = time.monotonic()
        try:
            with translated(job.name, ScriptError):
                yield
        except (ScriptError, LoadError, CheckFailed, LockTimeout) as error:
            self.stop.raise_if_requested()
            if help_with_path := self.session.path.help(error):
                error = ScriptError(f"{error}{help_with_path}")
            raise _JobFailed(job, error) from error
        record = self._records[job.name]
        seconds = (record.publish_seconds or 0.0) + time.monotonic() - began
        self._records[job.name] = replace(record, publish_seconds=seconds)

    def _run_checks(self, job: Job) -> None:
        for check in job.checks:
            self._start(check.script.path)
            result = run_check(self.connection, check)
            self._keep(job, result)
            if result.broken_by:
                self._notes.append((job.name, f"{result.claim}\n    This check only warns, so the job is published."))

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _lock_targets(self, job: Job, *, loads: bool) -> None:
        """Lock the job's tables before anything is written, then check their triggers.

        Taking a weaker lock first and a stronger one later could deadlock with other writers and with CREATE INDEX.
        """
        self._reset()
        with translated("before anything is written", ScriptError):
            lock_targets(self.connection, job, loads=loads)
            refuse_triggers(self.connection, ("bronze", "silver"), [], self._named - named_in([job]))

    def _define(self, jobs: Sequence[Job], layer: str) -> None:
        """Apply each definition of a layer that is new, or whose table or view was dropped or replaced.

        A try that meets a lock is rolled back, which lets waiting readers go on, and repeated after a pause.
        """
        until = time.monotonic() + self.retry.definition_seconds
        is_told = False
        while True:
            try:
                applied = self._apply_all(jobs, layer)
                break
            except _JobFailed as failure:
                if not isinstance(failure.error, LockTimeout) or time.monotonic() >= until:
                    raise
                execute(self.connection, "ROLLBACK TO SAVEPOINT elt_definitions; RELEASE SAVEPOINT elt_definitions")
                self._locks.forget_released()
                self._counter.new()  # PostgreSQL also counts what was rolled back
                if not is_told:
                    self.listener.line(f"trying for up to {self.retry.definition_seconds:g} s: {failure.error}")
                    is_told = True
            self.stop.pause(self.retry.definition_pause)
        for job, result, notes in applied:
            self._keep(job, result)
            self._notes += [(job.name, note) for note in notes]

    def _apply_all(self, jobs: Sequence[Job], layer: str) -> list[tuple[Job, ScriptResult, list[str]]]:
        """Apply the definitions in one savepoint. They have `definition_timeout` together to get their locks."""
        applied: list[tuple[Job, ScriptResult, list[str]]] = []
        began = time.monotonic()
        execute(self.connection, "SAVEPOINT elt_definitions")
        for job in jobs:
            with self._job(job):
                self._reset()
                for script in self._to_apply(job.of_layer(layer)):
                    self._reset()
                    left = max(SHORTEST_WAIT, began + self.retry.definition_timeout - time.monotonic())
                    apply_settings(self.connection, replace(self._settings, lock_timeout=left))
                    applied.append((job, *self._apply(script)))
        execute(self.connection, "RELEASE SAVEPOINT elt_definitions")
        return applied

    def _to_apply(self, scripts: Sequence[Script]) -> list[Script]:
        if self.preview and scripts and scripts[0].layer == "gold":
            return self.preview.gold_to_apply(self.connection, scripts)
        return definitions.not_applied(self.connection, scripts)

    def _apply(self, script: Script) -> tuple[ScriptResult, list[str]]:
        """Apply one definition. Returns also a note if the script's text is the same as when it was last applied."""
        execute(self.connection, "SAVEPOINT elt_definition")
        self.on_begin(script.path)
        options = read_options(self.connection, script.relation)
        try:
            result = run_script(self.connection, script)
            restore_options(self.connection, script.relation, options)
            self._note_changes()
        except ScriptError as error:
            execute(self.connection, "ROLLBACK TO SAVEPOINT elt_definition")
            raise ScriptError(f"{error}{self._help(script, error)}") from error
        execute(self.connection, "RELEASE SAVEPOINT elt_definition")
        notes = definitions.record_definition(self.connection, self.session.run_id, script)
        self._look_at_locks(script)
        return result, notes

    def _help(self, script: Script, error: ScriptError) -> str:
        """What to do about an error of a definition. If even that fails, the error alone is told."""
        try:
            return replacement_help(self.connection, script, error, self.session.path.path, self._gold)
        except psycopg2.Error:
            return ""

    def _load(self, load: Load, staged: Staged) -> None:
        began = time.monotonic()
        self._start(load.table)
        loaded = publish_bronze(
            self.connection, load, staged.contract, staged.staging, staged.rows, self.accepted, staged.difference
        )
        self._note_changes()  # these rows are not counted for ANALYZE: publish_bronze has already done it
        self._records[load.job] = replace(
            self._records[load.job],
            rows_loaded=loaded.rows,
            rows_before=loaded.rows_before,
            source_version=staged.source.version,
            source_imported_at=staged.source.imported_at,
            unused_columns=staged.unused_columns,
            bronze_fingerprint=loaded.left,
            is_unchanged=False,
            accepted=self.accepted.of(load.job),
            stage_seconds=staged.seconds,
            slices=staged.slices,
        )
        last = self._last_loads.get(load.job)
        if last and was_edited(last.bronze_fingerprint, loaded.found):
            self._notes.append(
                (
                    load.job,
                    f"{load.table} was changed by hand since run {last.run_id}."
                    " This load has overwritten it: bronze holds what the source holds.",
                )
            )
        if loaded.warning:
            self._notes.append((load.job, loaded.warning))
        self.listener.on_load(load.table, loaded.rows, time.monotonic() - began)

    def _keep_silver(self, job: Job, script: Script, result: ScriptResult) -> None:
        changes = self._note_changes()
        changed_rows = sum(changed.rows for changed in changes.values())
        # elt.publish_rows runs ANALYZE itself, so this is for rows that were changed in other ways
        if sum((result.row_counts or ())[:3]) != changed_rows:
            for table, changed in changes.items():
                analyze_if_changed(self.connection, table, changed.rows)
        self._look_at_locks(script)
        self._keep(job, replace(result, changed_rows=changed_rows))

    def _look_at_locks(self, script: Script) -> None:
        self._locks.look(script.path)
        if self.preview:
            refuse_waits(script.path, self._locks.waits())

    def _note_changes(self) -> dict[str, Changed]:
        """The rows changed since the last call, by table. Records those that other statements changed."""
        changes = self._counter.new()
        note_other_statements(self.connection, self.session.run_id, changes.values())
        return changes

    def _keep(self, job: Job, result: ScriptResult) -> None:
        record = self._records[job.name]
        self._records[job.name] = replace(record, scripts=(*record.scripts, result))
        self._notes += [(job.name, f"{result.path}: {text}") for text in result.warnings]
        self.listener.on_script(result)

    def _start(self, step: str) -> None:
        self._reset()
        self.on_begin(step)

    def _reset(self) -> None:
        self.stop.raise_if_requested()
        self._ask_owners()
        apply_settings(self.connection, self._settings)

    def _ask_owners(self) -> None:
        """If a stranger may create objects in our schemas, check again the owners of everything that scripts name."""
        if self._watchful:
            refuse_strangers(self.connection, self._named)
