"""Takes back what the last published run changed, in one transaction: bronze and silver, and with them gold.

If one table cannot be put back (`put_back`), nothing is done, and every reason is told. Readers never wait.

What a later run reads of the history is as it was before the run that was taken back: its jobs get status 'undone' in
elt.job_runs, so they no longer count as published.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lib.config.jobs import Job, Registry
from lib.config.settings import Settings
from lib.config.spelling import did_you_mean
from lib.elt_schema.installation import install, missing_right_on_changes
from lib.elt_schema.strangers import refuse_strangers, refuse_triggers, script_path
from lib.errors import (
    Cancelled,
    CheckFailed,
    CommitInDoubt,
    ConnectionLost,
    DatabaseError,
    EltError,
    LockTimeout,
    ScriptError,
    SettingsError,
)
from lib.postgres.blockers import BlockerWatch
from lib.postgres.connection import Connection, Database, execute, query
from lib.postgres.driver_errors import translated
from lib.postgres.maintenance import vacuum
from lib.postgres.run_lock import holds_run_lock, release_run_lock, run_name, take_run_lock
from lib.postgres.transaction import TransactionSettings, apply_settings, transaction
from lib.run import history, lost_commit
from lib.run.changes import drop_old
from lib.run.put_back import CHANGED, Changed, DoesNotFit, Table
from lib.run.targets import named_in
from lib.transform.checks import run_check

NOTHING_DONE = "Nothing was done."
#: the tables of these names that are there, in the order in which they are locked
THERE = """
    SELECT wanted.name, pg_class.oid
    FROM unnest(%s::text[]) AS wanted (name) JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
    WHERE relkind IN ('r', 'p') ORDER BY pg_class.oid
"""


class UndoRefused(EltError):
    """The run cannot be taken back. Nothing was done; the message has every reason."""


@dataclass(frozen=True)
class Undone:
    """What an undo did."""

    run_id: int
    undone_run_id: int
    #: tables that were put back, and how many of their rows
    tables: tuple[str, ...]
    rows: int
    #: scripts that the run had applied as definitions; they stay
    definitions: tuple[str, ...]
    #: how many checks ran, and what those say that break now
    checks: int = 0
    broken: tuple[str, ...] = ()
    #: warnings
    notes: tuple[str, ...] = ()


@dataclass
class Undo:
    """Takes back one run, which must still be the last one that published (`history.last_change`)."""

    settings: Settings
    database: Database
    #: None: the project's scripts cannot be read, so no check is run
    registry: Registry | None
    undone_run_id: int
    #: tables to leave as they are
    leave: Collection[str] = ()
    #: seconds for which it waits for a lock
    lock_timeout: float = 5.0
    #: as in the options of a run
    doubt_seconds: float = 180.0
    #: what COMMIT does; None: nothing was done. Set before COMMIT is sent, because its answer may be lost
    outcome: Undone | None = None

    @property
    def _jobs(self) -> list[Job]:
        return [*self.registry.jobs.values()] if self.registry else []

    def run(self) -> Undone:
        """Take the run lock, take the run back, run its checks. Raises UndoRefused, and other EltErrors."""
        connection = self.database.connect(run_name(datetime.now(UTC)))
        try:
            with translated("undo"), self.database.kept_alive(connection):
                take_run_lock(connection, advice="Type it again when that run has ended.")
                # the checks run these
                refuse_strangers(connection, named_in(self._jobs))
                install(connection)
                try:
                    self._take_back(connection)
                except CommitInDoubt as lost:
                    connection = self._after_lost_commit(connection, lost)
                return self._tidy(connection)
        finally:
            release_run_lock(connection)
            connection.close()

    def _take_back(self, connection: Connection) -> None:
        """The transaction. It makes the run's own row of the history, too, so if it fails there is no trace of it."""
        may_keep = self.settings.keep_changes > 0 and not missing_right_on_changes(connection)
        backend, recorder = connection.info.backend_pid, self.database.connect("elt history", stoppable=False)
        try:
            with BlockerWatch(recorder, backend, every=0.05) as blockers:
                try:
                    with translated("undo"), transaction(connection, TransactionSettings(self.lock_timeout)):
                        self.outcome = self._put_back(connection, may_keep)
                except LockTimeout as error:
                    who = blockers.in_the_way()
                    raise LockTimeout(f"{'; '.join(filter(None, (str(error), who)))}\n    {NOTHING_DONE}") from error
        finally:
            recorder.close()

    def _put_back(self, connection: Connection, may_keep: bool) -> Undone:
        if not holds_run_lock(connection):
            raise DatabaseError(f"this undo no longer holds the run lock, so a run may be at work. {NOTHING_DONE}")
        execute(connection, history.WRITING)
        undone = self.undone_run_id
        if history.last_change(connection) != undone:
            raise UndoRefused(f"run {undone} is no longer the last one that published. {NOTHING_DONE}")
        run_id = history.begin_undo(connection, undone, run_name(datetime.now(UTC)))
        apply_settings(connection, TransactionSettings(self.lock_timeout, run_id=run_id, keep_changes=may_keep))
        tables = self._lock(connection)
        if reasons := [reason for table in tables for reason in table.refusals()]:
            raise UndoRefused("\n    ".join([f"run {undone} cannot be taken back. {NOTHING_DONE}", *reasons]))
        try:
            for table in tables:
                table.put_back()
        except DoesNotFit as error:
            raise UndoRefused(f"run {undone} cannot be taken back. {NOTHING_DONE}\n    {error}") from error
        history.end_undo(connection, run_id, undone)
        applied = query(connection, "SELECT script FROM elt.definitions WHERE run_id >= %s ORDER BY script", (undone,))
        names = tuple(table.name for table in tables)
        return Undone(run_id, undone, names, sum(table.rows for table in tables), tuple(name for (name,) in applied))

    def _lock(self, connection: Connection) -> list[Table]:
        """The tables that the run changed, but those to leave; locked against writers, and their triggers checked."""
        changed = {row[0]: Changed(*row) for row in query(connection, CHANGED, (self.undone_run_id,))}
        for name in self.leave:
            if name not in changed:
                hint = did_you_mean(name, changed)
                raise SettingsError(
                    f"--except: run {self.undone_run_id} changed no table {name!r}{hint or '.'} {NOTHING_DONE}"
                )
            del changed[name]
        there = dict(query(connection, THERE, ([*changed],)))
        if there:
            execute(connection, f"LOCK TABLE {', '.join(there)} IN SHARE ROW EXCLUSIVE MODE")
            refuse_triggers(connection, (), [*there], ())
        return [Table(connection, self.undone_run_id, each, there.get(name)) for name, each in changed.items()]

    def _after_lost_commit(self, connection: Connection, lost: CommitInDoubt) -> Connection:
        """A new connection that holds the run lock, if COMMIT succeeded. Else raises ConnectionLost."""
        if self.outcome is None:
            raise lost  # does not happen: the outcome is set before COMMIT is sent
        how = f"SELECT run_id FROM elt.runs WHERE undone_run_id = {self.undone_run_id}; No row: nothing was taken back."
        answer = lost_commit.ask(
            self.database,
            self.outcome.run_id,
            connection.info.backend_pid,
            self.doubt_seconds,
            self.database.stop.pause,
            time.monotonic,
            f"\n    To find out: {how}",
        )
        if not answer.committed:
            raise ConnectionLost(f"{lost} {NOTHING_DONE}") from lost
        # another run has taken the lock meanwhile: what is left to do needs none
        return answer.connection or self.database.connect("elt undo")

    def _tidy(self, connection: Connection) -> Undone:
        """Run the checks, vacuum. An error or a stop is only reported: it cannot bring back what was taken back."""
        assert self.outcome is not None
        undone = self.outcome
        try:
            with translated("after the undo"):
                undone = self._check(connection, undone)
                notes = vacuum(connection, undone.tables)
                drop_old(connection, self.settings.keep_changes)
                return replace(undone, notes=tuple(notes))
        except (DatabaseError, Cancelled) as error:
            return replace(undone, notes=(f"it is taken back, but: {error}",))

    def _check(self, connection: Connection, undone: Undone) -> Undone:
        """Run the checks of the jobs that were taken back, in a transaction that is rolled back."""
        jobs = history.undone_jobs(connection, undone.undone_run_id)
        checks = [check for job in self._jobs if job.name in jobs for check in job.checks]
        ((day,),) = query(connection, "SELECT run_date FROM elt.runs WHERE run_id = %s", (undone.run_id,))
        settings = TransactionSettings(run_date=day, search_path=script_path(connection).path)
        broken = []
        with transaction(connection, settings, commit=False):
            for check in checks:
                self.database.stop.raise_if_requested()
                execute(connection, "SAVEPOINT elt_check")
                try:
                    with translated(check.script.path, ScriptError):
                        if claim := run_check(connection, check).claim:
                            broken.append(claim)
                except (CheckFailed, ScriptError) as error:
                    broken.append(str(error))
                execute(connection, "ROLLBACK TO SAVEPOINT elt_check")
                apply_settings(connection, settings)
        return replace(undone, broken=tuple(broken), checks=len(checks))
