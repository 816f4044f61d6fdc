"""A run: plan, stage, publish, record. The only module that knows all the workers.

plan      registry and settings are read, the run lock is taken, scripts are checked     (before anything is touched)
stage     exports of all jobs stream into elt_staging                                    (lib.stager)
publish   one transaction: bronze, silver, gold, checks, history; a group whole or not   (lib.publisher)
after     staging dropped, written tables vacuumed, failures recorded, one summary
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from lib import doubt, history, loader
from lib.blockers import BlockerWatch
from lib.console import Console
from lib.contract import Contract, match, read_contract, read_contracts
from lib.database import (
    CommitInDoubt,
    Connection,
    ConnectionLost,
    Database,
    LockTimeout,
    address,
    release_run_lock,
    run_name,
    take_run_lock,
    translated,
)
from lib.errors import Cancelled, DatabaseError, EltError, ExtractError, LoadError
from lib.extractors import Extractor, SourceTable
from lib.guards import Accepted, missing_columns
from lib.history import JobRecord, LastLoad
from lib.jobs import Job
from lib.plan import Plan, make_extractor, named_in
from lib.publisher import Published, Publisher, given_up
from lib.settings import Settings
from lib.stager import Progress, Staged, Stager
from lib.stop import Stop
from lib.strangers import ScriptPath, refuse_strangers, script_path


@dataclass(frozen=True)
class Patience:
    """How long a publish waits for locks: seconds a lock, tries, and seconds between two tries."""

    lock_timeout: float = 5.0
    tries: int = 5
    pause: float = 15.0


@dataclass(frozen=True)
class Options:
    """What a person may say about one run."""

    wait: bool = False
    accepted: Accepted = Accepted()
    #: what scripts read as elt.run_date(); None is today in the settings' time zone
    run_date: date | None = None
    patience: Patience = Patience()
    #: seconds for which the database is asked what became of a COMMIT whose answer was lost; after two minutes of
    #: silence the server ends the lost session (tcp_keepalives), and its lock is free
    doubt_seconds: float = 180.0


@dataclass(frozen=True)
class RunResult:
    """How a run ended; exit_code is for the process."""

    exit_code: int
    records: tuple[JobRecord, ...] = ()
    run_id: int | None = None
    error: EltError | None = None


NOTHING_PUBLISHED = " What PostgreSQL held before this run is still there."


# ---- run ------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One run of a plan. `environ` is where cloud clients look for endpoints."""

    plan: Plan
    settings: Settings
    database: Database
    console: Console
    options: Options = Options()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def __post_init__(self) -> None:
        # one value for the whole run, also for one that goes on past midnight
        self.run_date = self.options.run_date or datetime.now(self.settings.zone).date()

    @property
    def stop(self) -> Stop:
        return self.database.stop

    def run(self) -> RunResult:
        """Do it. Raises what ends a run before it has a number; afterwards every outcome is a RunResult."""
        with translated("this run"):
            connection = self.database.connect(run_name(datetime.now(UTC)))
            try:
                take_run_lock(connection, self.stop.pause if self.options.wait else None)
                refuse_strangers(connection, named_in(job for group in self.plan.groups for job in group))
                history.install(connection)
                recorder = self.database.connect("elt history", stoppable=False)
                try:
                    return self._recorded(connection, recorder)
                finally:
                    recorder.close()
            finally:
                release_run_lock(connection)
                connection.close()

    def _recorded(self, connection: Connection, recorder: Connection) -> RunResult:
        """Give the run a number, and let no ending go unrecorded."""
        run_id = history.begin_run(connection, self.plan.jobs, run_name(datetime.now(UTC)), self.run_date)
        try:
            with translated(f"run {run_id}"):
                loader.sweep_staging(connection)
                records = self._work(connection, recorder, run_id)
        except EltError as reason:
            error = self.stop.explain(reason)
            status = "cancelled" if self.stop.requested else "failed"
            self._record(recorder, run_id, status, error)
            return RunResult(error.exit_code, run_id=run_id, error=error)
        failed = [record for record in records if record.status != "published"]
        return RunResult(1 if failed else 0, tuple(records), run_id)

    def _record(self, recorder: Connection, run_id: int, status: str, error: EltError) -> None:
        try:
            with translated("history"):
                ended = history.end_run(recorder, run_id, status, str(error))
                # another run calls this one lost where it was not published
                if not ended and history.ended_as(recorder, run_id) != "lost":
                    self.console.warn(f"run {run_id} had been published before that")
        except DatabaseError as unrecorded:
            self.console.warn(f"the failure could not be recorded: {unrecorded}")

    def _work(self, connection: Connection, recorder: Connection, run_id: int) -> list[JobRecord]:
        path = script_path(connection)
        staged, failed = self._stage(connection, recorder, run_id, path)
        if len(failed_groups := [group for group in self.plan.groups if _any(group, failed)]) == len(self.plan.groups):
            records = [record for group in failed_groups for record in given_up(group, failed, self.options.accepted)]
            self._record_failed(recorder, run_id, records, all_of_them=True)
            self._tidy(connection, None)
            return records
        published, survivor = self._publish(connection, recorder, run_id, staged, failed, path)
        try:
            self._record_failed(recorder, run_id, published.records, all_of_them=False)
            if survivor is not None:
                self._tidy(survivor, published)
        finally:
            if survivor not in (None, connection):
                release_run_lock(survivor)
                survivor.close()
        return list(published.records)

    def _record_failed(
        self, recorder: Connection, run_id: int, records: Sequence[JobRecord], *, all_of_them: bool
    ) -> None:
        """Write down the jobs that were not published. What was published is recorded already, and stays published."""
        try:
            with translated("recording what failed"):
                if all_of_them:
                    history.end_run(recorder, run_id, "failed")
                history.record_jobs(recorder, run_id, [record for record in records if record.status != "published"])
        except DatabaseError as unrecorded:
            self.console.warn(str(unrecorded))

    # ---- stage ------------------------------------------------------------------------------------------------------

    def _stage(
        self, connection: Connection, recorder: Connection, run_id: int, path: ScriptPath
    ) -> tuple[dict[str, Staged], dict[str, EltError]]:
        """Export and stage what is to be loaded; a plan that only transforms needs no source and no token."""
        if not self.plan.loads:
            self.console.begin(run_id, address(connection))
            return {}, {}
        extractor = make_extractor(self.settings, f"elt-{run_id}", self.stop, self.environ, self.console.line)
        source = extractor.describe()
        history.name_source(connection, run_id, source)
        self.console.begin(run_id, address(connection), source)
        contracts, refused = self._contracts(connection, recorder, path)
        last_loads = history.last_loads(recorder)
        outdated, watched = self._look_at_bystanders(connection, extractor, last_loads)
        refused |= outdated
        groups = [
            [job for job in group if job.name in self.plan.loads]
            for group in self.plan.groups
            if not _any(group, refused)
        ]
        with self.console.staging() as progress:
            stager = Stager(
                self.database,
                extractor,
                connection,
                run_id,
                self.settings.parallel,
                contracts,
                self.options.accepted,
                {job: last.unused_columns for job, last in last_loads.items()},
                Progress(progress.exported, progress.copied, progress.staged, self.console.note),
            )
            staged, failed = stager.stage([group for group in groups if group], watched)
        return staged, refused | failed

    def _contracts(
        self, connection: Connection, recorder: Connection, path: ScriptPath
    ) -> tuple[dict[str, Contract], dict[str, EltError]]:
        """The columns that each export must fill, and the jobs for which that cannot be said."""
        patience = self.options.patience
        jobs = [job for group in self.plan.groups for job in group if job.name in self.plan.loads]
        with BlockerWatch(recorder, connection.info.backend_pid, every=0.05) as blockers:
            pauses = [patience.pause] * (patience.tries - 1)
            contracts, failed = read_contracts(connection, jobs, path, pauses, self.stop.pause, blockers.last_seen)
        self.stop.check()
        return contracts, failed

    def _look_at_bystanders(
        self, connection: Connection, extractor: Extractor[Any], loaded: Mapping[str, LastLoad]
    ) -> tuple[dict[str, EltError], dict[str, list[SourceTable]]]:
        """A partial run gives what a whole one would, or is refused: tables of its groups that it does not load must
        be in the source what they were when they were loaded here. They are watched while the others are exported."""
        refused: dict[str, EltError] = {}
        watched: dict[str, list[SourceTable]] = {}
        for job in self.plan.bystanders:
            group = next(group for group in self.plan.groups if group[0].name in self.plan.registry.group_of(job.name))
            asked = [other.name for other in group if other.name in self.plan.loads]
            if not asked:
                continue
            whole = " ".join(
                name for name in self.plan.registry.group_of(job.name) if self.plan.registry.jobs[name].load
            )
            try:
                source = extractor.table(job.source.table)
            except ExtractError as error:
                refused.setdefault(asked[0], error)
                continue
            if job.name not in loaded or loaded[job.name].version != source.version:
                if text := _lost_columns(connection, job, source):
                    refused.setdefault(asked[0], LoadError(text))
                    continue
                reason = "changed in the source since it was loaded" if job.name in loaded else "was never loaded here"
                refused.setdefault(
                    asked[0],
                    LoadError(
                        f"{' and '.join([*asked, job.name])} no longer match: {source.id} {reason}."
                        f" Run all of them: python elt_run_job.py {whole}"
                    ),
                )
            watched.setdefault(asked[0], []).append(source)
        return refused, watched

    # ---- publish ----------------------------------------------------------------------------------------------------

    def _publish(
        self,
        connection: Connection,
        recorder: Connection,
        run_id: int,
        staged: Mapping[str, Staged],
        failed: Mapping[str, EltError],
        path: ScriptPath,
    ) -> tuple[Published, Connection | None]:
        """Publish, again after a pause when somebody's lock was in the way; the last error says whose.

        Returns a connection that holds the run lock, too: another one, where this one was lost at COMMIT; None where
        another run has begun meanwhile.
        """
        patience = self.options.patience
        publisher = Publisher(
            connection,
            run_id,
            staged,
            self.options.accepted,
            path,
            patience.lock_timeout,
            self.run_date,
            self.stop.check,
            self.console.script,
            self.console.loaded,
        )
        backend = connection.info.backend_pid
        try:
            return self._publish_in_tries(publisher, recorder, backend, failed), connection
        except CommitInDoubt as error:
            if publisher.outcome is None:
                raise  # COMMIT is sent once the outcome is known
            return publisher.outcome, self._ask_about_commit(error, run_id, backend)
        except ConnectionLost as error:
            raise ConnectionLost(f"{error}{NOTHING_PUBLISHED}") from error

    def _publish_in_tries(
        self, publisher: Publisher, recorder: Connection, backend: int, failed: Mapping[str, EltError]
    ) -> Published:
        patience = self.options.patience
        with BlockerWatch(recorder, backend) as blockers, self.console.publishing() as publisher.begins:
            for _ in range(1, patience.tries):
                try:
                    return publisher.publish(self.plan.groups, failed, blockers.last_seen, last_try=False)
                except LockTimeout as error:
                    self.console.line(f"{error}; trying again in {patience.pause:g} s")
                    self.stop.pause(patience.pause)
            return publisher.publish(self.plan.groups, failed, blockers.last_seen, last_try=True)

    def _ask_about_commit(self, lost: CommitInDoubt, run_id: int, backend: int) -> Connection | None:
        """A connection that holds the run lock, where the run is published; None where another run has the lock by now.

        Raises ConnectionLost where it is not published, DatabaseError where nobody answers.
        """
        try:
            answer = doubt.ask(
                self.database, run_id, backend, self.options.doubt_seconds, self.stop.pause, time.monotonic
            )
        except Cancelled:
            how = doubt.how_to_look(run_id)
            self.console.warn(f"stopped before PostgreSQL said whether this run was published.{how}")
            raise
        if answer.committed:
            self.console.line("the connection was lost while PostgreSQL answered COMMIT; asked again: it is published")
            return answer.connection
        if answer.connection is not None:
            release_run_lock(answer.connection)
            answer.connection.close()
        raise ConnectionLost(f"{lost}{NOTHING_PUBLISHED}") from lost

    # ---- after ------------------------------------------------------------------------------------------------------

    def _tidy(self, connection: Connection, published: Published | None) -> None:
        """Nothing here can undo what was published, so nothing here fails the run."""
        try:
            with translated("tidying up after the run"):
                loader.sweep_staging(connection)
                if published is None:
                    return
                for job, note in published.notes:
                    self.console.note(job, note)
                for relation, script, seconds in published.locked:
                    self.console.warn(f"{script} changed {relation}: its readers waited for up to {seconds:.1f} s")
                for notice in loader.vacuum(connection, published.written):
                    self.console.warn(notice)
        except DatabaseError as error:
            self.console.warn(f"what was published stays, but: {error}" if published else str(error))


def _lost_columns(connection: Connection, job: Job, source: SourceTable) -> str:
    """That a table which is not loaded now lacks a column: loading it, too, would not help. Empty: it lacks none."""
    with suppress(LoadError):  # its bronze table is not there yet
        return missing_columns(job, source, match(read_contract(connection, job.target), source))
    return ""


def _any(group: Sequence[Job], names: Mapping[str, object]) -> bool:
    return any(job.name in names for job in group)
