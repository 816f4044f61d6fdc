"""Finds which sessions block a session that waits for a lock. PostgreSQL can tell this only during the wait."""

from __future__ import annotations

from typing import Any

from lib.postgres.connection import Connection, query
from lib.stop import StopSignal, start_thread

BLOCKERS = """
    SELECT blocker.pid, blocker.usename, blocker.application_name, blocker.state,
           to_char(blocker.xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS'),
           (SELECT waiting.relation::regclass::text FROM pg_locks AS waiting
            WHERE waiting.pid = %(pid)s AND NOT waiting.granted LIMIT 1)
    FROM pg_stat_activity AS blocker
    WHERE blocker.pid = ANY (pg_blocking_pids(%(pid)s))
    ORDER BY blocker.pid
"""


class BlockerWatch:
    """Asks every `every` seconds, in a thread and on a separate connection, which sessions block the session `pid`."""

    def __init__(self, connection: Connection, pid: int, *, every: float = 0.5) -> None:
        self._connection = connection
        self._pid = pid
        self._every = every
        self._done = StopSignal()
        self._found = ""

    def __enter__(self) -> BlockerWatch:
        self._thread = start_thread(self._watch, "blockers")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.request()
        self._thread.exception(timeout=10)

    def last_seen(self) -> str:
        """The sessions that were last seen blocking, for a message; empty if none was seen."""
        return self._found

    def _watch(self) -> None:
        while not self._done.requested:
            rows = query(self._connection, BLOCKERS, {"pid": self._pid})
            if rows:
                self._found = "; ".join(map(_blocker, rows))
            self._done.wait(self._every)


def _blocker(row: tuple[Any, ...]) -> str:
    pid, user, application, state, since, relation = row
    who = ", ".join(
        text for text in (user, application, state, since and f"transaction open since {since} UTC") if text
    )
    return f"backend {pid} ({who}) holds {relation or 'a lock'}; to end it: SELECT pg_terminate_backend({pid});"
