"""Runs the steps of a run in order: plan, stage, publish, record. The steps themselves are in other modules.

plan      read registry, settings and secrets, check scripts, take the run lock          (before anything changes)
stage     exports of all jobs stream into elt_staging                                    (load.exports)
publish   one transaction: bronze, silver, gold, checks, history; each group as a whole  (publisher)
after     record failures, drop staging tables, vacuum the written tables
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from importlib import import_module

import psycopg2

from lib.config.settings import Settings
from lib.elt_schema.installation import ONLY_COUNTED, install, missing_right_on_changes
from lib.elt_schema.strangers import refuse_strangers, script_path
from lib.errors import (
    BusyError,
    Cancelled,
    CommitInDoubt,
    ConnectionLost,
    DatabaseError,
    EltError,
    LockTimeout,
    SettingsError,
    limit_reached,
)
from lib.load.contract import Contract
from lib.load.exports import Staged, Stager, Unchanged
from lib.load.guards import Accepted
from lib.load.staging_table import sweep_staging
from lib.postgres.blockers import BlockerWatch
from lib.postgres.connection import Connection, Database, address, query
from lib.postgres.driver_errors import translate, translated
from lib.postgres.maintenance import vacuum
from lib.postgres.run_lock import PREVIEW, lock_holder, release_run_lock, run_name, take_run_lock
from lib.run import history, lost_commit
from lib.run.changes import drop_old
from lib.run.flow import FlowWait, counting_from
from lib.run.history import JobRecord, failure_records
from lib.run.listener import RunListener
from lib.run.plan import Plan, check_unselected_loads, make_extractor, make_flow_query, prepare_sources
from lib.run.preview import Preview
from lib.run.publisher import AgainOnCopies, Published, Publisher
from lib.run.reader_waits import ReaderWait
from lib.run.session import LockRetry, Session
from lib.run.table_states import move_states
from lib.run.targets import named_in
from lib.run.trial import read_contracts
from lib.run.unchanged import inputs_md5, known_loads, unchanged_since
from lib.stop import StopSignal, TimeLimit, start_thread


@dataclass(frozen=True)
class Options:
    """What the user may choose for one run."""

    wait: bool = False
    #: whether to export tables that did not change, too
    full: bool = False
    accepted: Accepted = Accepted()
    #: the date that elt.run_date() returns to scripts; None: today in the settings' time zone
    run_date: date | None = None
    #: whether run_date may be more than a year before the first published one
    accept_date: bool = False
    lock_retry: LockRetry = LockRetry()
    #: seconds for which to ask the database whether a COMMIT succeeded whose answer was lost. After two minutes without
    #: contact the server ends the lost session (tcp_keepalives) and releases its lock, so this must be longer.
    doubt_seconds: float = 180.0
    #: how a run is typed here, for messages
    command: str = "python main.py run"
    #: whether to show only what the run would change: its publish is rolled back
    preview: Preview | None = None
    #: whether to wait first for the flow that the settings name
    wait_for_flow: bool = False
    #: seconds, for `stage_minutes`
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class RunResult:
    """How a run ended. exit_code is the exit code for the process."""

    exit_code: int
    records: tuple[JobRecord, ...] = ()
    run_id: int | None = None
    error: EltError | None = None
    #: nothing had changed since this run, which ended at this time, so nothing was published
    unchanged_since: tuple[int, datetime] | None = None


#: seconds that readers had to wait, from which on a quiet run says so, too
WORTH_A_WARNING = 1.0
#: `stage_minutes` are over
OVER = (
    "not staged: stage_minutes = {} are over\n    The rows loaded before stay. Run again; if the exports need more"
    " time, raise it under [run] in elt_settings.toml."
)
#: how far this machine's clock may be from the server's
CLOCKS_APART = timedelta(days=1)
NOTHING_PUBLISHED = " What PostgreSQL held before this run is still there."


@dataclass
class Run:
    """One run of a plan. `environ` may set endpoints of clouds (`object_stores.locate`)."""

    plan: Plan
    settings: Settings
    database: Database
    listener: RunListener
    options: Options = Options()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    #: this machine's clock
    now: Callable[[tzinfo], datetime] = datetime.now

    @property
    def stop(self) -> StopSignal:
        return self.database.stop

    def run(self) -> RunResult:
        """Run all steps. Raises EltError only before the run has a number; later errors are in the RunResult."""
        with translated("this run"), self._session() as session:
            try:
                with translated(f"run {session.run_id}"):
                    sweep_staging(session.connection)
                    staged, unchanged, failed = self._stage(session)
                    if not (staged or failed) and (since := self._unchanged_since(session)):
                        # a preview is no run, so it does not count as one that found nothing new
                        history.end_run(
                            session.connection, session.run_id, "done", is_unchanged=not self.options.preview
                        )
                        return RunResult(0, run_id=session.run_id, unchanged_since=since)
                    records = self._publish(session, staged, unchanged, failed)
            except Exception as reason:
                # its text may hold a secret, so the history has only its name
                expected = reason if isinstance(reason, EltError) else limit_reached(reason)
                error = self._gave_way(session) or self.stop.cause_of(
                    expected or EltError(f"unexpected error: {type(reason).__name__}")
                )
                self._record_end(session, error)
                if expected is None:
                    raise
                return RunResult(error.exit_code, run_id=session.run_id, error=error)
        exit_code = 0 if all(record.status == "published" for record in records) else 1
        return RunResult(exit_code, records, session.run_id)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """Connect, take the run lock, check for code of other roles, update schema elt, and give the run its number."""
        # one value for the whole run, even if it continues past midnight
        run_date = self.options.run_date or self.now(self.settings.zone).date()
        if self.options.wait_for_flow and self.plan.loads and self.settings.wait_for_flow:
            self._wait_for_flow(self.settings.wait_for_flow)
        is_preview = self.options.preview is not None
        # importing the HTTP library takes 0.06 s; meanwhile PostgreSQL works
        start_thread(partial(import_module, "lib.extract.keboola"), "import")
        connection = self.database.connect(run_name(datetime.now(UTC), *([PREVIEW] if is_preview else [])))
        try:
            with self.database.kept_alive(connection):
                self._refuse_wrong_clock(connection)
                # before the lock: reading it may take seconds, and if it is missing, nothing has been written
                self.settings = prepare_sources(self.settings, self.plan.source_loads, self.environ)
                wait = self.stop.pause if self.options.wait else None
                if take_run_lock(connection, wait, is_preview=is_preview):
                    self.listener.line("a preview was at work; it was ended for this run")
                refuse_strangers(connection, named_in(job for group in self.plan.groups for job in group))
                recorder = self.database.connect("elt history", stoppable=False)
                try:
                    with self.database.kept_alive(recorder):
                        with _naming_blockers(connection, recorder):
                            install(connection)
                            self._refuse_old_date(connection, run_date)
                            process = run_name(datetime.now(UTC))
                            kind = "preview" if is_preview else "run"
                            run_id = history.begin_run(connection, self.plan.jobs, process, run_date, kind)
                        keeps, path = self._keeps_changes(connection), script_path(connection)
                        if is_preview:
                            self.listener.line("a preview: all that follows is rolled back")
                        yield Session(run_id, connection, recorder, path, run_date, keeps, is_preview)
                finally:
                    recorder.close()
        finally:
            release_run_lock(connection)
            connection.close()

    def _keeps_changes(self, connection: Connection) -> bool:
        """Whether this run keeps the rows that it changes. Says what to type if it may not."""
        wanted = self.settings.keep_changes > 0 or self.options.preview is not None  # a preview shows rows
        if wanted and (statement := missing_right_on_changes(connection)):
            self.listener.line(f"{ONLY_COUNTED} {statement}")
            return False
        return wanted

    def _refuse_wrong_clock(self, connection: Connection) -> None:
        """Raises SettingsError if the run's date would come from a clock that is wrong: the day is kept for ever."""
        ((there,),) = query(connection, "SELECT clock_timestamp()")
        here = self.now(UTC)
        if self.options.run_date is None and abs(here - there) > CLOCKS_APART:
            raise SettingsError(
                f"this machine's clock says {here:%Y-%m-%d %H:%M}, PostgreSQL's {there.astimezone(UTC):%Y-%m-%d %H:%M}"
                " (UTC): which day is it? Nothing was done. Set the clock that is wrong, or name the day with --date."
            )

    def _refuse_old_date(self, connection: Connection, run_date: date) -> None:
        """Raises SettingsError if --date is more than a year before the first published day: a typo of the year."""
        first = history.first_published(connection)
        if first and not self.options.accept_date and run_date < first - timedelta(days=366):
            raise SettingsError(
                f"--date {run_date} is more than a year before the first day that was published here, {first}."
                " Nothing was done. If it is no mistake, add --accept-date."
            )

    def _wait_for_flow(self, flow: str) -> None:
        """Wait until the flow has ended that fills the source. No connection is open meanwhile: it may take hours."""
        zone = self.settings.zone
        connection = self.database.connect("elt flow")
        try:
            self._refuse_wrong_clock(connection)
            self.settings = prepare_sources(self.settings, self.plan.source_loads, self.environ)
            refuse_strangers(connection, [])
            since = counting_from(connection, self.now(zone))
        finally:
            connection.close()
        newest = make_flow_query(self.settings, self.stop, self.environ, self.listener.line)
        minutes, command = self.settings.wait_minutes, self.options.command
        FlowWait(flow, newest, minutes, zone, command, self.listener.line, self.stop.pause).wait(since)

    def _gave_way(self, session: Session) -> EltError | None:
        """The error of a preview whose session was ended. A run does that, because it needs the run lock."""
        if not self.options.preview:
            return None
        try:
            query(session.connection, "SELECT 1")
            return None
        except psycopg2.Error:
            if not session.connection.closed:
                return None
        try:
            holder = lock_holder(session.recorder)
        except psycopg2.Error as error:
            return translate(error, "the preview")  # the server is gone, or the network
        by = f"for {holder[1]} (PostgreSQL backend {holder[0]}, role {holder[2]})" if holder else "by another session"
        return BusyError(f"the preview was ended {by}. Nothing was changed. Start it again when that run has ended.")

    def _record_end(self, session: Session, error: EltError) -> None:
        """Record why the run ended early."""
        status = "cancelled" if self.stop.requested or isinstance(error, BusyError) else "failed"
        try:
            with translated("history"):
                ended = history.end_run(session.recorder, session.run_id, status, str(error))
                # "lost" was set by a later run, and means that this one was not published
                if not ended and history.ended_as(session.recorder, session.run_id) != "lost":
                    self.listener.warn(f"run {session.run_id} had been published before that")
        except DatabaseError as unrecorded:
            self.listener.warn(f"the failure could not be recorded: {unrecorded}")

    def _unchanged_since(self, session: Session) -> tuple[int, datetime] | None:
        """The last run that published, if publishing again would change nothing, provided that no source changed."""
        may_skip = self.plan.is_whole and not self.options.full and not self.options.accepted.given
        return unchanged_since(session, self.plan.registry) if may_skip else None

    # ---- stage ------------------------------------------------------------------------------------------------------

    def _stage(self, session: Session) -> tuple[dict[str, Staged], dict[str, Unchanged], dict[str, EltError]]:
        """Export and stage the jobs that load, but not those whose sources did not change.

        If the plan has no such job, neither the source nor a token is needed.
        """
        if not self.plan.loads:
            self.listener.begin(session.run_id, address(session.connection))
            return {}, {}, {}
        minutes = self.settings.stage_minutes
        limit = TimeLimit(self.stop, 60 * minutes, OVER.format(minutes), self.options.clock)
        extractor = make_extractor(
            self.settings,
            self.plan.source_loads,
            f"elt-{session.run_id}",
            limit.pause,
            self.environ,
            self.listener.line,
        )
        source = extractor.describe()
        history.name_source(session.connection, session.run_id, source)
        self.listener.begin(session.run_id, address(session.connection), source)
        contracts, failed = self._contracts(session)
        last_loads = history.last_loads(session.recorder)
        outdated, watched = check_unselected_loads(
            self.plan, session.connection, extractor, last_loads, self.options.command
        )
        failed |= outdated
        known = {} if self.options.full else known_loads(session.connection, self.plan.loading_jobs, source)
        for job in self.options.accepted.jobs:  # who accepts a guard wants to load
            known.pop(job, None)
        with self.listener.staging() as progress:
            stager = Stager(
                self.database,
                extractor,
                session.connection,
                session.run_id,
                self.settings.parallel,
                contracts,
                self.options.accepted,
                {job: last.unused_columns for job, last in last_loads.items()},
                progress,
                limit,
                known,
                history.undone_loads(session.recorder, self.plan.registry.groups),
            )
            staged, failed_staging = stager.stage(self.plan.loads_without(failed), watched)
        return staged, stager.unchanged, failed | failed_staging

    def _contracts(self, session: Session) -> tuple[dict[str, Contract], dict[str, EltError]]:
        """The columns that each export must fill, and the error of each job whose columns cannot be determined."""
        with _naming_blockers(session.connection, session.recorder) as blockers:
            found = read_contracts(
                session.connection,
                self.plan.loading_jobs,
                session.path,
                self.options.lock_retry.pauses,
                self.stop.pause,
                blockers.in_the_way,
            )
        self.stop.raise_if_requested()
        return found

    # ---- publish ----------------------------------------------------------------------------------------------------

    def _publish(
        self,
        session: Session,
        staged: Mapping[str, Staged],
        unchanged: Mapping[str, Unchanged],
        failed: Mapping[str, EltError],
    ) -> tuple[JobRecord, ...]:
        """Publish every group without a failed job. If another session's lock blocks it, pause and try again."""
        if not self.plan.groups_without(failed):
            return self._publish_nothing(session, failed)
        retry, accepted = self.options.lock_retry, self.options.accepted
        jobs = list(self.plan.registry.jobs.values())
        inputs = inputs_md5(session, self.plan.registry) if self.plan.is_whole else None
        publisher = Publisher(
            session, retry, staged, unchanged, jobs, inputs, accepted, self.listener, self.stop, self.options.preview
        )
        backend = session.connection.info.backend_pid
        try:
            with BlockerWatch(session.recorder, backend) as blockers, self.listener.publishing() as publisher.on_begin:
                pauses = retry.pauses
                while True:
                    try:
                        blockers.begin()
                        published = publisher.publish(
                            self.plan.groups, failed, blockers.in_the_way, last_try=not pauses
                        )
                        break
                    except AgainOnCopies:
                        self.listener.line("a script locks readers of a table out: again, on a copy of the table")
                    except LockTimeout as error:
                        if not pauses:
                            raise
                        self.listener.line(f"trying again in {pauses[0]:g} s: {error}")
                        self.stop.pause(pauses.pop(0))
        except CommitInDoubt as error:
            if publisher.outcome is None:
                raise  # does not happen: the outcome is set before COMMIT is sent
            return self._after_lost_commit(session, publisher.outcome, error, backend)
        except ConnectionLost as error:
            raise ConnectionLost(f"{error}{NOTHING_PUBLISHED}") from error
        self._tell_waits(published.waits, blockers.readers())
        if self.options.preview:
            self._record_preview(session, published)
        else:
            self._record_failures(session, published.records)
        self._tidy(session.connection, published)
        return published.records

    def _tell_waits(self, waits: Sequence[ReaderWait], readers: Mapping[str, tuple[int, float]]) -> None:
        """Report what was locked, and the readers that were seen waiting for it, those of earlier tries included."""
        scripts = {wait.relation: f"{wait.script} locked it for {wait.seconds:.1f} s" for wait in waits}
        for relation in {**scripts, **readers}:
            count, longest = readers.get(relation, (0, 0.0))
            waited = f"{count} reader{'s' if count > 1 else ''} waited, up to {longest:.1f} s" if count else ""
            say = self.listener.warn if longest >= WORTH_A_WARNING else self.listener.line
            say(f"{relation}: {', '.join(filter(None, (scripts.get(relation, 'waiting for its lock'), waited)))}")

    def _publish_nothing(self, session: Session, failed: Mapping[str, EltError]) -> tuple[JobRecord, ...]:
        """Record the end of a run in which every group has a failed job."""
        accepted = self.options.accepted
        records = tuple(record for group in self.plan.groups for record in failure_records(group, failed, accepted))
        if self.options.preview:
            self._record_preview(session, Published(records))
        else:
            self._record_failures(session, records, end="failed")
        self._tidy(session.connection, Published())
        return records

    def _after_lost_commit(
        self, session: Session, published: Published, lost: CommitInDoubt, backend: int
    ) -> tuple[JobRecord, ...]:
        """Ask the database whether COMMIT succeeded, and continue the run if it did.

        Raises ConnectionLost if it did not succeed, DatabaseError if the database cannot be asked.
        """
        try:
            answer = lost_commit.ask(
                self.database, session.run_id, backend, self.options.doubt_seconds, self.stop.pause, time.monotonic
            )
        except Cancelled:
            how = lost_commit.how_to_look(session.run_id)
            self.listener.warn(f"stopped before PostgreSQL said whether this run was published.{how}")
            raise
        try:
            if not answer.committed:
                raise ConnectionLost(f"{lost}{NOTHING_PUBLISHED}") from lost
            self.listener.line("the connection was lost while PostgreSQL answered COMMIT; asked again: it is published")
            self._record_failures(session, published.records)
            if answer.connection is not None:  # None: another run has taken the lock meanwhile
                self._tidy(answer.connection, published)
        finally:
            if answer.connection is not None:
                release_run_lock(answer.connection)
                answer.connection.close()
        return published.records

    def _record_preview(self, session: Session, published: Published) -> None:
        """Record how a preview ended, after the rollback of its transaction."""
        failures = [f"{record.job}: {record.error}" for record in published.records if record.status == "failed"]
        with translated("recording the preview"):
            move_states(session.connection, published.moved)
            end = "failed" if failures else "done"
            history.end_run(session.recorder, session.run_id, end, "\n".join(failures) or None)

    # ---- after ------------------------------------------------------------------------------------------------------

    def _record_failures(self, session: Session, records: Sequence[JobRecord], *, end: str | None = None) -> None:
        """Record the jobs that were not published, and with `end` also how the run ended.

        Published jobs were already recorded in the publish transaction.
        """
        failures = [record for record in records if record.status != "published"]
        try:
            with translated("recording what failed"):
                if end:
                    history.end_run(session.recorder, session.run_id, end)
                history.record_jobs(session.recorder, session.run_id, failures)
        except DatabaseError as unrecorded:
            self.listener.warn(str(unrecorded))

    def _tidy(self, connection: Connection, published: Published) -> None:
        """Drop staging tables, report notes, vacuum. An error here is only a warning: it cannot undo data."""
        try:
            with translated("tidying up after the run"):
                sweep_staging(connection, published.kept)
                for job, note in published.notes:
                    self.listener.note(job, note)
                is_preview = self.options.preview is not None
                for notice in vacuum(connection, published.written, with_statistics=is_preview):
                    self.listener.warn(notice)
                if not is_preview:
                    drop_old(connection, self.settings.keep_changes)
        except DatabaseError as error:
            self.listener.warn(f"what was published stays, but: {error}" if published.records else str(error))


@contextmanager
def _naming_blockers(connection: Connection, recorder: Connection) -> Iterator[BlockerWatch]:
    """Add to a LockTimeout inside who holds the lock that this connection waited for."""
    with BlockerWatch(recorder, connection.info.backend_pid, every=0.05) as blockers:
        try:
            with translated("the history in schema elt"):
                yield blockers
        except LockTimeout as error:
            raise LockTimeout("; ".join(filter(None, (str(error), blockers.in_the_way())))) from error
