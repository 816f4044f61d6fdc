"""A run: plan, stage, publish, record. The only module that knows all the workers.

plan      registry and settings are read, the run lock is taken, scripts are checked     (before anything is touched)
stage     exports of all jobs stream into elt_staging                                    (lib.stager)
publish   one transaction: bronze, silver, gold, checks, history; a group whole or not   (lib.publisher)
after     staging dropped, written tables vacuumed, failures recorded, one summary
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone

from lib import history, loader
from lib.blockers import BlockerWatch
from lib.console import Console
from lib.database import (
    Connection,
    Database,
    LockTimeout,
    address,
    release_run_lock,
    run_name,
    take_run_lock,
    translated,
)
from lib.errors import DatabaseError, EltError, ExtractError, LoadError
from lib.extractors import Extractor, SourceTable
from lib.history import JobRecord
from lib.plan import Plan, make_extractor
from lib.publisher import Published, Publisher, given_up
from lib.registry import Job
from lib.settings import Settings
from lib.stager import Progress, Staged, Stager
from lib.stop import Stop


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
    accept_shrink: frozenset[str] = frozenset()
    #: what scripts read as elt.run_date(); None is today in the settings' time zone
    run_date: date | None = None
    patience: Patience = Patience()


@dataclass(frozen=True)
class RunResult:
    """How a run ended; exit_code is for the process."""

    exit_code: int
    records: tuple[JobRecord, ...] = ()
    run_id: int | None = None
    error: EltError | None = None


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
            connection = self.database.connect(run_name(datetime.now(timezone.utc)))
            try:
                take_run_lock(connection, self.stop.pause if self.options.wait else None)
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
        run_id = history.begin_run(connection, self.plan.jobs, run_name(datetime.now(timezone.utc)), self.run_date)
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
                history.end_run(recorder, run_id, status, str(error))
        except DatabaseError as unrecorded:
            self.console.warn(f"the failure could not be recorded: {unrecorded}")

    def _work(self, connection: Connection, recorder: Connection, run_id: int) -> list[JobRecord]:
        staged, failed = self._stage(connection, recorder, run_id)
        if len(failed_groups := [group for group in self.plan.groups if _any(group, failed)]) == len(self.plan.groups):
            published = None
            records = [record for group in failed_groups for record in given_up(group, failed)]
            history.end_run(recorder, run_id, "failed")
        else:
            published = self._publish(connection, recorder, run_id, staged, failed)
            records = list(published.records)
        with translated("recording what failed"):
            history.record_jobs(recorder, run_id, [record for record in records if record.status != "published"])
        self._tidy(connection, published)
        return records

    # ---- stage ------------------------------------------------------------------------------------------------------

    def _stage(
        self, connection: Connection, recorder: Connection, run_id: int
    ) -> tuple[dict[str, Staged], dict[str, EltError]]:
        """Export and stage what is to be loaded; a plan that only transforms needs no source and no token."""
        if not self.plan.loads:
            self.console.line(f"{address(connection)}, run {run_id}")
            return {}, {}
        extractor = make_extractor(self.settings, f"elt-{run_id}", self.stop, self.environ, self.console.line)
        source = extractor.describe()
        history.name_source(connection, run_id, source)
        self.console.line(f"{source} -> {address(connection)}, run {run_id}")
        refused, watched = self._look_at_bystanders(extractor, history.loaded_versions(recorder))
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
                Progress(progress.exported, progress.copied, progress.staged, self.console.note),
            )
            staged, failed = stager.stage([group for group in groups if group], watched)
        return staged, refused | failed

    def _look_at_bystanders(
        self, extractor: Extractor, loaded: Mapping[str, str]
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
                source = extractor.table(job.extract.table)
            except ExtractError as error:
                refused.setdefault(asked[0], error)
                continue
            if loaded.get(job.name) != source.version:
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
    ) -> Published:
        """Publish, again after a pause when somebody's lock was in the way; the last error says whose."""
        patience = self.options.patience
        publisher = Publisher(
            connection,
            run_id,
            staged,
            self.options.accept_shrink,
            patience.lock_timeout,
            self.run_date,
            self.stop.check,
            self.console.script,
            self.console.loaded,
        )
        with BlockerWatch(recorder, connection.info.backend_pid) as blockers:
            for _ in range(1, patience.tries):
                try:
                    return publisher.publish(self.plan.groups, failed, blockers.last_seen, last_try=False)
                except LockTimeout as error:
                    self.console.line(f"{error}; trying again in {patience.pause:g} s")
                    self.stop.pause(patience.pause)
            return publisher.publish(self.plan.groups, failed, blockers.last_seen, last_try=True)

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
            self.console.warn(str(error))


def _any(group: Sequence[Job], names: Mapping[str, object]) -> bool:
    return any(job.name in names for job in group)
