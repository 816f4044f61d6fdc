"""Stages exports: requests all of them at once and copies their slices through one pool of connections.

Tables of one group must form a consistent snapshot. The version of each is read before the first export is requested
and again after the last row is staged. If one changed in between, the group is exported again.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Generic, Protocol

from lib.config.jobs import Load
from lib.errors import (
    ConnectionLost,
    DatabaseError,
    EltError,
    ExtractError,
    LoadError,
    OutOfTime,
    TooManyConnections,
)
from lib.extract import ExportGone, Extractor, Slice, SourceTable, Ticket
from lib.load.contract import Contract, Match, landing_name, match, may_be_column
from lib.load.difference import HALVES, Comparison, Difference, Half, prepare_comparison
from lib.load.guards import (
    Accepted,
    UndoneLoad,
    brought_back,
    check_age,
    check_columns,
    check_count,
    named,
    refuse_undone,
    row_limit,
)
from lib.load.staging_table import Staging, copy_slice, create_staging
from lib.postgres.connection import Connection, Database, query
from lib.postgres.driver_errors import translated
from lib.stop import TimeLimit, start_thread

#: how often a group is exported again because its source tables changed during the export
EXPORT_RETRIES = 2


@dataclass(frozen=True)
class StagedSlice:
    """One slice of an export, as it was staged: a row of elt.slices."""

    number: int
    name: str
    #: the source's own ids of the job that made the export and of its file
    source_job: str | None
    source_file: str | None
    #: of CSV, unpacked
    bytes: int
    rows: int
    seconds: float
    tries: int


@dataclass(frozen=True)
class Staged:
    """One job's export, complete in its staging table."""

    staging: Staging
    source: SourceTable
    contract: Contract
    #: columns of the source that bronze does not ask for
    unused_columns: tuple[str, ...]
    rows: int
    seconds: float
    #: what differs from the bronze table; None: it could not be compared
    difference: Difference | None
    slices: tuple[StagedSlice, ...] = ()


@dataclass(frozen=True)
class KnownLoad:
    """What an earlier run loaded into a bronze table that is still as that run left it."""

    run_id: int
    #: of the source table
    version: str
    rows: int

    def is_current(self, load: Load, source: SourceTable) -> bool:
        """Whether an export would deliver the same rows again, and no guard would speak of their number."""
        return (
            source.version == self.version
            and source.version_is_exact
            and self.rows >= load.min_rows
            and source.rows in (None, self.rows)
        )


@dataclass(frozen=True)
class Unchanged:
    """A job that was not exported, because its source is what an earlier run loaded."""

    source: SourceTable
    #: columns of the source that bronze does not ask for
    unused_columns: tuple[str, ...]


class StagingProgress(Protocol):
    """Receives progress while exports are staged. Its methods are called from several threads."""

    def exported(self, job: str, slices: int, rows: int | None) -> None:
        """The export is ready to be read. rows: the source's own count, None if it gives none."""

    def copied(self, job: str, rows: int) -> None:
        """One slice with this many rows is staged."""

    def staged(self, job: str, rows: int, seconds: float) -> None:
        """The last slice is staged. rows and seconds are those of the whole export."""

    def unchanged(self, job: str, run_id: int) -> None:
        """The job is not exported: its source is what this run loaded."""

    def note(self, job: str, text: str) -> None:
        """A message for the user."""

    def line(self, text: str) -> None:
        """Information about all exports."""


@dataclass
class _Export(Generic[Ticket]):
    """An export that is being staged. The stager's lock protects `staged`, `slices_left` and `halves`."""

    load: Load
    staging: Staging
    #: None: the bronze table cannot be compared with it
    comparison: Comparison | None
    source: SourceTable
    unused_columns: tuple[str, ...]
    #: what the extractor's `finish` needs
    ticket: Ticket
    began: float
    slices: int = -1
    slices_left: int = -1
    job_id: str | None = None
    file_id: str | None = None
    staged: list[StagedSlice] = field(default_factory=list)
    seconds: float = 0.0
    #: those that were compared
    halves: list[Half] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.staged)

    @property
    def difference(self) -> Difference | None:
        if self.comparison is None or len(self.halves) < len(HALVES):
            return None
        return Difference(self.comparison, tuple(self.halves))


#: some work with one of the connections of the pool
Work = Callable[[Connection], None]


@dataclass
class Stager(Generic[Ticket]):
    """Stages the jobs of some groups. `connection` holds the run lock."""

    database: Database
    extractor: Extractor[Ticket]
    connection: Connection
    run_id: int
    parallel: int
    #: by job: the columns to export
    contracts: Mapping[str, Contract]
    accepted: Accepted
    #: by job: source columns beyond the contract that an earlier run has already reported
    known_unused: Mapping[str, Collection[str]]
    progress: StagingProgress
    #: ends the waits of the extractor
    limit: TimeLimit
    #: by job: what need not be exported if the source is still the same
    known: Mapping[str, KnownLoad] = field(default_factory=dict)
    #: by job: what was taken back
    undone: Mapping[str, UndoneLoad] = field(default_factory=dict)
    #: by job: what was not exported
    unchanged: dict[str, Unchanged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._noted: set[tuple[str, str]] = set()
        #: jobs whose export was started again because a file of it was gone
        self._began_again: set[str] = set()
        self._lock = Lock()
        self._connecting = Lock()
        self._failed: dict[str, EltError] = {}
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._queue: queue.SimpleQueue[tuple[_Export[Ticket], Work] | None] = queue.SimpleQueue()
        #: exports that the source has not finished
        self._unready = 0
        #: slices and comparisons that are queued or at work
        self._unfinished = 0
        self._copying: list[Future[None]] = []
        self._connections = 0
        #: whether the server has refused one more connection
        self._is_full = False

    def stage(
        self, groups: Sequence[Sequence[Load]], watched: Mapping[str, Sequence[SourceTable]]
    ) -> tuple[dict[str, Staged], dict[str, EltError]]:
        """Stage all jobs of all groups but those in `unchanged`. Returns what was staged and what failed, by job.

        watched: by the first job of a group, further source tables that must not change during the export.
        A group with a failed job is not exported again; the other groups continue. Raises only what ends the whole
        run: a refused token, a lost database connection, a stop.
        """
        staged: dict[str, Staged] = {}
        pending = list(groups)
        for retries_left in range(EXPORT_RETRIES, -1, -1):
            staged |= self._stage_once(pending)
            if gone := self._take_gone(pending):
                staged |= self._stage_once([[load] for load in gone])
            for job in self.unchanged:
                staged.pop(job, None)
            moved = {
                group[0].job: self._moved(group, staged, watched) for group in pending if not self._has_failed(group)
            }
            pending = [group for group in pending if moved.get(group[0].job)]
            for group in pending:
                names = ", ".join(moved[group[0].job])
                text = f"{names} changed in the source while it was exported"
                if retries_left:
                    self.progress.note(group[0].job, f"{text}: exporting the group again")
                else:
                    self._failed[group[0].job] = ExtractError(
                        f"{text}, {EXPORT_RETRIES + 1} times. The rows loaded before stay."
                        " Run again when the source no longer changes."
                    )
            if not pending:
                break
        return staged, self._failed

    def _take_gone(self, groups: Sequence[Sequence[Load]]) -> list[Load]:
        """Jobs that failed because a file of their export is gone; they no longer count as failed.

        A group in which something else failed too stays as it is."""
        taken: list[Load] = []
        for group in groups:
            failed = [load for load in group if load.job in self._failed]
            if all(isinstance(self._failed[load.job], ExportGone) for load in failed):
                taken += failed
        for load in taken:
            self._began_again.add(load.job)
            self.progress.note(load.job, f"{self._failed.pop(load.job)}; exporting it again")
        return taken

    def _has_failed(self, group: Sequence[Load]) -> bool:
        return any(load.job in self._failed for load in group)

    def _moved(
        self, group: Sequence[Load], staged: Mapping[str, Staged], watched: Mapping[str, Sequence[SourceTable]]
    ) -> list[str]:
        """Ids of the group's source tables that changed since they were looked at before its first export."""
        exported = [staged[load.job].source for load in group if load.job in staged]
        if not exported:
            return []  # bronze keeps what was published together
        kept = [self.unchanged[load.job].source for load in group if load.job in self.unchanged]
        before = [*exported, *kept, *watched.get(group[0].job, ())]
        with self._blame(group[0]):
            return [table.id for table in before if self.extractor.table(table.id).version != table.version]
        return []

    @contextmanager
    def _blame(self, load: Load) -> Iterator[None]:
        """Record an ExtractError or LoadError as this job's failure and go on. Only the first error is kept."""
        try:
            yield
        except OutOfTime as error:
            self._failed.setdefault(load.job, OutOfTime(f"{load.extract.table}: {error}"))
        except (ExtractError, LoadError) as error:
            if isinstance(error, ExportGone) and load.job in self._began_again:
                error = ExtractError(f"{error}, for the second time. The rows loaded before stay. Run again")
            self._failed.setdefault(load.job, error)

    # ---- one pass ---------------------------------------------------------------------------------------------------

    def _stage_once(self, groups: Sequence[Sequence[Load]]) -> dict[str, Staged]:
        self._begin_pass()
        self.limit.holds = True
        details = {
            load.job: start_thread(partial(self.extractor.table, load.extract.table), f"table {load.job}")
            for group in groups
            for load in group
        }
        exports = [export for group in groups for export in self._start_group(group, details)]
        self._unready = len(exports)
        finishing = [start_thread(partial(self._finish, export), f"export {export.load.job}") for export in exports]
        self._await(finishing)
        # what is staged by now may be published, so the source is asked whether it changed meanwhile
        self.limit.holds = False
        for export in exports:
            with self._blame(export.load):
                self._compare_counts(export)
        return {
            export.load.job: Staged(
                export.staging,
                export.source,
                self.contracts[export.load.job],
                export.unused_columns,
                export.rows,
                export.seconds,
                export.difference,
                tuple(export.staged),
            )
            for export in exports
            if export.load.job not in self._failed
        }

    def _start_group(self, group: Sequence[Load], details: Mapping[str, Future[SourceTable]]) -> list[_Export[Ticket]]:
        """Compare every source table of the group with its contract, then request every export that is needed."""
        began = time.monotonic()
        ready: dict[str, tuple[SourceTable, Match]] = {}
        exports: list[_Export[Ticket]] = []
        for load in group:
            with self._blame(load):
                source = details[load.job].result()
                found = match(self.contracts[load.job], source)
                self._tell_columns(load, source, found)
                check_columns(load, source, found, self.accepted)
                check_age(load, source, datetime.now(UTC), self.accepted)
                ready[load.job] = source, found
        if len(ready) < len(group):
            return []
        sources = [(load, ready[load.job][0]) for load in group]
        # a job that begins again has passed with its whole group
        is_again = group[0].job in self._began_again
        if not is_again and (brought := brought_back(sources, self.undone, self.accepted)):
            for load in brought:
                with self._blame(load):
                    refuse_undone(ready[load.job][0], self.undone[load.job], brought, self.accepted)
            return []
        for load in group:
            source, found = ready[load.job]
            self.unchanged.pop(load.job, None)
            known = self.known.get(load.job)
            if known and known.is_current(load, source):
                self.unchanged[load.job] = Unchanged(source, found.unused)
                self.progress.unchanged(load.job, known.run_id)
                continue
            with self._blame(load):
                name = f"r{self.run_id}_{load.job}"
                staging = create_staging(self.connection, name, self.contracts[load.job], found.found, source)
                comparison = prepare_comparison(self.connection, load, self.contracts[load.job], staging)
                ticket = self.extractor.start(source, tuple(found.found.values()))
                exports.append(_Export(load, staging, comparison, source, found.unused, ticket, began))
        return exports

    def _tell_columns(self, load: Load, source: SourceTable, found: Match) -> None:
        """Report columns that are new, not loaded, or missing. Each message is printed once per run."""
        contract = self.contracts[load.job]
        new = [column for column in found.unused if column not in self.known_unused.get(load.job, ())]
        shadowed = [column for column in new if landing_name(column) in contract.self_filling]
        new = [column for column in new if column not in shadowed]
        if new:
            text = f"{source.id} has columns that {contract.table} lacks; they are not loaded: {named(new)}"
            loadable = [name for name in map(landing_name, new) if may_be_column(name)]
            # no advice to add a column if another one is missing: the new one is more likely the missing one, renamed
            if loadable and not found.missing:
                text += (
                    f"\n    To load one, add to {load.script}:"
                    f" SELECT elt.add_column('{contract.table}', '{loadable[0]}', 'text');"
                )
            self._note_once(load, text)
        for column in shadowed:
            self._note_once(
                load,
                f"{source.id} has a column {column!r}, but {contract.table} fills {landing_name(column)!r} itself,"
                f" so it is not loaded\n    To load it, remove its DEFAULT in {load.script} and in the table",
            )
        if found.missing and found.found and self.accepted.has(load.job, "missing"):
            self._note_once(
                load, f"{source.id} has no column {named(found.missing)}: NULL in {contract.table}, as accepted"
            )

    def _note_once(self, load: Load, text: str) -> None:
        if (load.job, text) not in self._noted:
            self._noted.add((load.job, text))
            self.progress.note(load.job, text)

    def _finish(self, export: _Export[Ticket]) -> None:
        """Wait for one export, then queue its slices for the pool."""
        with self._blame(export.load):
            finished = self.extractor.finish(export.ticket)
            slices, export.job_id, export.file_id = finished.slices, finished.job_id, finished.file_id
            export.slices = export.slices_left = len(slices)
            self.progress.exported(export.load.job, len(slices), export.source.rows)
            self._add(export, [partial(self._copy_slice, export, csv_slice) for csv_slice in slices])
            if not slices:
                self._end_copying(export)
        with self._lock:
            self._unready -= 1
            self._end_pool()

    def _add(self, export: _Export[Ticket], works: Sequence[Work]) -> None:
        """Queue work for the pool, and start threads for it if there are not enough."""
        with self._lock:
            self._unfinished += len(works)
            for work in works:
                self._queue.put((export, work))
            while len(self._copying) < min(self.parallel, self._unfinished):
                self._copying.append(start_thread(self._work, f"copy {len(self._copying)}"))

    def _end_pool(self) -> None:
        """End the threads of the pool if there is nothing more to do. The caller holds the lock."""
        if not self._unready and not self._unfinished:
            for _ in self._copying:
                self._queue.put(None)

    def _work(self) -> None:
        """One thread of the pool, with its own connection: do what is queued until there is no more."""
        if (connection := self._connect()) is None:
            return
        try:
            while (item := self._next(connection)) is not None:
                self.database.stop.raise_if_requested()
                export, work = item
                if export.load.job not in self._failed:
                    with self._blame(export.load):
                        work(connection)
                with self._lock:
                    self._unfinished -= 1
                    self._end_pool()
        finally:
            connection.close()

    def _next(self, connection: Connection) -> tuple[_Export[Ticket], Work] | None:
        """The next work; None if there is no more. Keeps the connection alive while exports are not ready."""
        while True:
            try:
                return self._queue.get(timeout=self.database.keep_alive)
            except queue.Empty:
                with translated("a connection that copies"):
                    query(connection, "SELECT 1")

    def _connect(self) -> Connection | None:
        """A connection that copies. None if the server has no slot for it, but others of this pool have one."""
        with self._connecting:  # one at a time, so that the message below has the right number
            if self._is_full:
                return None
            try:
                connection = self.database.connect(f"elt run {self.run_id} copy")
            except TooManyConnections:
                self._is_full = True
                if not self._connections:
                    raise
                self.progress.line(
                    f"PostgreSQL gives no more connections: copying goes on with {self._connections} of {self.parallel}"
                )
                return None
            self._connections += 1
            return connection

    def _copy_slice(self, export: _Export[Ticket], csv_slice: Slice, connection: Connection) -> None:
        began = time.monotonic()
        limit = row_limit(export.load, export.source, export.rows, self.accepted)
        copied = copy_slice(connection, export.staging, csv_slice, export.source.id, limit)
        self.progress.copied(export.load.job, copied.rows)
        staged = StagedSlice(
            csv_slice.number,
            csv_slice.name,
            export.job_id,
            export.file_id,
            copied.bytes,
            copied.rows,
            time.monotonic() - began,
            copied.tries,
        )
        with self._lock:
            export.staged.append(staged)
            export.slices_left -= 1
            last = export.slices_left == 0
        if last:
            self._end_copying(export)

    def _end_copying(self, export: _Export[Ticket]) -> None:
        """Report that every slice is staged, and queue the comparison with the bronze table."""
        export.seconds = time.monotonic() - export.began
        self.progress.staged(export.load.job, export.rows, export.seconds)
        if export.comparison:
            self._add(export, [partial(self._compare, export, export.comparison, half) for half in HALVES])

    def _compare(self, export: _Export[Ticket], comparison: Comparison, half: int, connection: Connection) -> None:
        """Compare one half of the rows. If that fails, every row will be replaced, which needs no comparison."""
        try:
            found = comparison.compare(connection, half)
        except ConnectionLost:
            raise
        except DatabaseError as error:
            self._note_once(export.load, f"{error}\n    So every row is replaced, which takes longer.")
            return
        with self._lock:
            export.halves.append(found)

    def _compare_counts(self, export: _Export[Ticket]) -> None:
        """Compare the number of staged rows with the source's own count, if it has a comparable one."""
        load, source = export.load, export.source
        if load.job in self._failed:
            return
        if export.slices == 0 and source.rows is None:
            self._note_once(
                load, f"{source.id}: the export lists no files, and the source has no row count: taken as 0 rows"
            )
        if source.rows in (None, export.rows) or self.extractor.table(source.id).version != source.version:
            return  # the source changed: `stage` then exports the whole group again, or gives up
        if export.slices == 0:
            raise ExtractError(
                f"{source.id}: the source counts {source.rows:,} rows, but its export lists no files."
                " The rows loaded before stay. Run again; if it happens again, tell Keboola's support."
            )
        check_count(load, source, export.rows, self.accepted)

    def _await(self, finishing: list[Future[None]]) -> None:
        """Wait for all threads. Raises what a thread raised, Cancelled on a stop, ConnectionLost with the run lock."""
        pending, known = set(finishing), 0
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            # threads of the pool are started by those that finish exports, or by others of the pool, before these end
            pending.update(self._copying[known:])
            known = len(self._copying)
            self.database.stop.raise_if_requested()
            if self.connection.closed:
                with translated("the connection that holds the run lock"):
                    query(self.connection, "SELECT 1")
