"""A run: plan, stage, publish, record. The only module that knows all the workers.

plan      registry and settings are read, the run lock is taken, scripts are checked     (before anything is touched)
stage     exports of all jobs stream into elt_staging                                    (lib.stager)
publish   one transaction: bronze, silver, gold, checks, history; a group whole or not   (lib.publisher)
after     staging dropped, written tables vacuumed, failures recorded, one summary
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from lib import history, loader
from lib.console import Console
from lib.credentials import keboola_token
from lib.database import (
    BlockerWatch,
    Connection,
    Database,
    LockTimeout,
    address,
    release_run_lock,
    run_name,
    take_run_lock,
    translated,
)
from lib.errors import DatabaseError, EltError, ExtractError, JobConfigError, LoadError
from lib.extractors import Extractor, SourceTable
from lib.history import JobRecord
from lib.publisher import Published, Publisher, given_up
from lib.registry import Job, Registry, read_registry
from lib.settings import Settings, require_keboola, require_postgres
from lib.stager import Progress, Staged, Stager
from lib.stop import Stop
from lib.transformer import refusals


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
    patience: Patience = Patience()


@dataclass(frozen=True)
class Plan:
    """Which jobs a run works on: `loads` are exported and loaded, the others only transform."""

    registry: Registry
    loads: tuple[str, ...]
    #: what publishes together, each in dependency order
    groups: tuple[tuple[Job, ...], ...]
    #: jobs of the same groups that load but were not asked for: their tables must still be what was loaded
    bystanders: tuple[Job, ...]

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(job.name for group in self.groups for job in group)


@dataclass(frozen=True)
class RunResult:
    """How a run ended; exit_code is for the process."""

    exit_code: int
    records: tuple[JobRecord, ...] = ()
    run_id: int | None = None
    error: EltError | None = None


# ---- plan -----------------------------------------------------------------------------------------------------------


def read_project(root: Path) -> Registry:
    """The registry of a project with all its scripts read and checked.

    Raises JobConfigError with every mistake, of the registry and of scripts, at once.
    """
    registry = read_registry(root / "elt_jobs.json", root / "sql_scripts")
    scripts = {
        script.path: script
        for job in registry.jobs.values()
        for script in (*job.transform, *(check.script for check in job.checks))
    }
    mistakes = [text for script in scripts.values() for text in refusals(script)]
    if mistakes:
        raise JobConfigError("\n".join(mistakes))
    return registry


def make_plan(registry: Registry, names: Sequence[str] = ()) -> Plan:
    """All jobs, or the named ones with the transforms and checks of everything downstream of them.

    Raises SettingsError for a name that the registry lacks.
    """
    registry.check_names(names)
    named = set(names or registry.jobs)
    taking_part = named | set(registry.downstream(named))
    groups = [[registry.jobs[name] for name in group if name in taking_part] for group in registry.groups]
    touched = {name for group in registry.groups if taking_part & set(group) for name in group}
    return Plan(
        registry,
        loads=tuple(name for name, job in registry.jobs.items() if name in named and job.load),
        groups=tuple(tuple(group) for group in groups if group),
        bystanders=tuple(
            job for name, job in registry.jobs.items() if name in touched and name not in named and job.load
        ),
    )


def open_database(settings: Settings, stop: Stop) -> Database:
    """The database that the settings name; the embedded server is started where it is meant and not running.

    Raises SettingsError where nothing is named.
    """
    require_postgres(settings)
    if not settings.postgres.embedded:
        return Database(settings, stop)
    from lib.embedded import Server

    return Database(settings, stop, Server.start(settings.state / "postgres").connect_args())


def make_extractor(
    settings: Settings, run_id: str, stop: Stop, environ: Mapping[str, str], report: Callable[[str], None]
) -> Extractor:
    """The source of rows; run_id ties our calls together in Keboola's own logs.

    Raises SettingsError or CredentialError where the project or its token is missing.
    """
    from lib.extractors.keboola import KeboolaExtractor

    return KeboolaExtractor(
        require_keboola(settings),
        keboola_token(settings, environ),
        run_id=run_id,
        parallel=settings.parallel,
        pause=stop.pause,
        environ=environ,
        report=report,
    )


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
        run_id = history.begin_run(recorder, self.plan.jobs, run_name(datetime.now(timezone.utc)))
        try:
            with translated(f"run {run_id}"):
                loader.sweep_staging(connection)
                records = self._work(connection, recorder, run_id)
        except EltError as error:
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
        self._tidy(connection, staged, published)
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
        history.name_source(recorder, run_id, source)
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
            self.stop.check,
            self.console.script,
            self.console.loaded,
        )
        with BlockerWatch(recorder, connection.info.backend_pid) as blockers:
            for attempt in range(1, patience.tries + 1):
                try:
                    published = publisher.publish(self.plan.groups, failed, last_try=attempt == patience.tries)
                    break
                except LockTimeout as error:
                    self.console.line(
                        f"{_first_line(error)}; {blockers.last_seen()}; trying again in {patience.pause:g} s"
                    )
                    self.stop.pause(patience.pause)
        if published.blocked is not None and blockers.last_seen():
            self.console.warn(f"in the way: {blockers.last_seen()}")
        return published

    # ---- after ------------------------------------------------------------------------------------------------------

    def _tidy(self, connection: Connection, staged: Mapping[str, Staged], published: Published | None) -> None:
        """Nothing here can undo what was published, so nothing here fails the run."""
        try:
            with translated("tidying up after the run"):
                for one in staged.values():
                    loader.drop_staging(connection, one.staging.name)
                if published is None:
                    return
                for job, note in published.notes:
                    self.console.note(job, note)
                for relation, script, seconds in published.locked:
                    self.console.warn(f"{script} changed {relation}: its readers waited for up to {seconds:.1f} s")
                for notice in loader.vacuum(connection, list(published.written)):
                    self.console.warn(notice)
        except DatabaseError as error:
            self.console.warn(str(error))


def _any(group: Sequence[Job], names: Mapping[str, object]) -> bool:
    return any(job.name in names for job in group)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
