"""Finds who holds the lock that a session waits for, and which readers wait for that session.

PostgreSQL shows both only during the wait, so a thread asks again and again on a connection of its own.
PostgreSQL: "Explicit Locking"; the views pg_locks and pg_prepared_xacts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg2

from lib.postgres.connection import Connection, query
from lib.stop import StopSignal, start_thread

#: what a lock is on, as one text
TARGET = (
    "concat_ws(':', locks.locktype, locks.database, locks.relation, locks.page, locks.tuple, locks.virtualxid,"
    " locks.transactionid, locks.classid, locks.objid, locks.objsubid)"
)
WAITING = f"""
    SELECT {TARGET}, mode, relation::regclass::text
    FROM pg_locks AS locks
    WHERE pid = %s AND NOT granted
"""
#: PostgreSQL's lock modes, the strongest first, and how many of them, from the strongest on, conflict with each
CONFLICTING = {
    "AccessExclusive": 8,
    "Exclusive": 7,
    "ShareRowExclusive": 6,
    "Share": 6,
    "ShareUpdateExclusive": 5,
    "RowExclusive": 4,
    "RowShare": 2,
    "AccessShare": 1,
}
#: the sessions and prepared transactions with a lock of one of these modes on the target; those that only wait last
HOLDERS = f"""
    SELECT DISTINCT ON (locks.granted, locks.pid, prepared.gid)
        locks.granted,
        locks.pid,
        coalesce(prepared.owner, activity.usename),
        activity.application_name,
        activity.state,
        clock_timestamp() - coalesce(prepared.prepared, activity.xact_start),
        quote_literal(prepared.gid),
        -- pg_terminate_backend, ROLLBACK PREPARED: whom may our role end?
        ours.rolsuper
        OR pg_has_role(coalesce(prepared.owner, activity.usename), 'USAGE')
        OR (pg_has_role('pg_signal_backend', 'USAGE') AND NOT theirs.rolsuper AND prepared.gid IS NULL)
    FROM pg_locks AS locks
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
    -- a prepared transaction has no backend; it shows by the lock that each transaction holds on its own number
    LEFT JOIN (
        pg_locks AS number JOIN pg_prepared_xacts AS prepared ON number.transactionid = prepared.transaction
    ) ON locks.pid IS NULL AND number.pid IS NULL AND number.virtualtransaction = locks.virtualtransaction
    LEFT JOIN pg_roles AS theirs ON theirs.rolname = coalesce(prepared.owner, activity.usename)
    LEFT JOIN pg_roles AS ours ON ours.rolname = current_user
    WHERE {TARGET} = %(target)s AND locks.mode = ANY (%(modes)s) AND locks.pid IS DISTINCT FROM %(pid)s
    ORDER BY locks.granted DESC, locks.pid, prepared.gid
"""
#: readers of a relation that wait because the session holds its lock, or waits for it in front of them
READERS = """
    SELECT relation::regclass::text, pid, waitstart::text, extract(EPOCH FROM clock_timestamp() - waitstart)::float
    FROM pg_locks
    WHERE NOT granted AND mode IN ('AccessShareLock', 'RowShareLock') AND locktype = 'relation' AND pid <> %(pid)s
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND %(pid)s = ANY (pg_blocking_pids(pid))
"""


@dataclass(frozen=True)
class Wait:
    """What a session waits for."""

    target: str
    mode: str
    #: None: a row or a transaction
    relation: str | None

    @property
    def conflicting(self) -> list[str]:
        """The lock modes that conflict with this one."""
        wanted = self.mode.removesuffix("Lock")
        modes = [*CONFLICTING][: CONFLICTING.get(wanted, 8)]
        return [f"{mode}Lock" for mode in modes if mode != "Share" or wanted != "Share"]


class BlockerWatch:
    """Looks every `every` seconds, in a thread and on a separate connection, at the locks of the session `pid`."""

    def __init__(self, connection: Connection, pid: int, *, every: float = 0.1) -> None:
        self._connection = connection
        self._pid = pid
        self._every = every
        self._done = StopSignal()
        self._wait: Wait | None = None
        #: relation -> each reader's longest wait in seconds, by backend and begin
        self._readers: dict[str, dict[tuple[int, str], float]] = {}

    def __enter__(self) -> BlockerWatch:
        self._thread = start_thread(self._watch, "blockers")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.request()
        self._thread.exception(timeout=10)

    def begin(self) -> None:
        """Call before each try: what an earlier try waited for is forgotten."""
        self._wait = None

    def in_the_way(self) -> str:
        """Who holds, at this moment, the lock that the session last waited for, for a message.

        Empty if no wait was seen.
        """
        wait, rows = self._wait, []
        if wait is None:
            return ""
        with suppress(psycopg2.Error):
            rows = query(
                self._connection, HOLDERS, {"pid": self._pid, "target": wait.target, "modes": wait.conflicting}
            )
        # who only waits for the lock, too, is in the way if nobody holds it
        in_the_way = [row for row in rows if row[0]] or rows
        return "; ".join(_described(row, wait) for row in in_the_way) or "the lock has been released meanwhile"

    def readers(self) -> dict[str, tuple[int, float]]:
        """By relation: how many readers were seen waiting for the session, and for how long at most, in seconds."""
        return {
            relation: (len(waits), max(waits.values()) + self._every) for relation, waits in [*self._readers.items()]
        }

    def _watch(self) -> None:
        while not self._done.requested:
            for row in query(self._connection, WAITING, (self._pid,)):
                self._wait = Wait(*row)
            for relation, pid, begin, seconds in query(self._connection, READERS, {"pid": self._pid}):
                self._readers.setdefault(relation, {})[pid, begin] = seconds
            self._done.wait(self._every)


def _described(row: tuple[Any, ...], wait: Wait) -> str:
    """One holder, and the statement that ends it."""
    granted, pid, user, application, state, age, gid, may_end = row
    what = wait.relation or "a row that this run changes"
    does = f"{'holds' if granted else 'waits for'} {what}; to end it{'' if may_end else ', an administrator types'}:"
    if gid is not None:
        return f"prepared transaction {gid} of {user}, {_ago(age)}, {does} ROLLBACK PREPARED {gid};"
    who = ", ".join(text for text in (user, application, state, age and f"transaction began {_ago(age)}") if text)
    return f"backend {pid} ({who}) {does} SELECT pg_terminate_backend({pid});"


def _ago(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
