"""The run lock: only one run at a time in a database. A session holds it, so it is released when the session ends.

PostgreSQL: "Explicit Locking", section "Advisory Locks".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import psycopg2

from lib.errors import BusyError
from lib.postgres.connection import Connection, execute, query

#: pg_locks shows the run lock as classid = LOCK[0], objid = LOCK[1] of the target database: "elt", 1
LOCK = (0x656C74, 1)
#: how the application_name of a preview begins
PREVIEW = "elt preview"
#: milliseconds that the server gets to end a preview
TO_END = 10_000

#: the session that holds the run lock of this database
HOLDER = """
    FROM pg_locks AS holder
    JOIN pg_stat_activity AS activity USING (pid)
    WHERE holder.locktype = 'advisory' AND holder.granted
        AND holder.classid = %s AND holder.objid = %s AND holder.objsubid = 2
        AND holder.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def run_name(now: datetime, what: str = "elt") -> str:
    """The application_name of the session that holds the lock: all that other roles can see of it. At most 63 bytes.

    what: PREVIEW for a preview.
    """
    host = socket.gethostname().split(".")[0].encode("ascii", "replace").decode()[: 20 + len("elt") - len(what)]
    return f"{what} pid {os.getpid()} on {host} since {now:%Y-%m-%d %H:%M:%SZ}"


def take_run_lock(
    connection: Connection,
    wait: Callable[[float], None] | None = None,
    *,
    is_preview: bool = False,
    advice: str = "Run again later, or wait for it with --wait.",
) -> bool:
    """Take the session lock that makes this the only run in this database. Returns whether a preview was ended for it.

    A preview that holds the lock is ended, so that no run waits for it; another preview does not end it.

    wait None: raises BusyError, which names the holder, if another run holds the lock. Otherwise `wait` is called with
    the seconds to pause, and the lock is tried once a second. A blocking pg_advisory_lock() is not used, because it
    would hold a snapshot and so keep VACUUM from removing old rows.
    """
    ended = False
    while not try_run_lock(connection):
        if not is_preview and _end_preview(connection):
            ended = True
            continue
        if wait is None:
            raise BusyError(f"another run is at work here: {_holder_in_words(connection)}. Nothing was done. {advice}")
        wait(1.0)
    return ended


def _end_preview(connection: Connection) -> bool:
    """End the session that holds the lock if it is a preview of our role, and wait until it has ended.

    Returns whether it has. All that it did is rolled back.
    """
    end = f"SELECT pg_terminate_backend(pid, {TO_END}) {HOLDER} AND starts_with(application_name, %s)"
    try:
        return query(connection, end, (*LOCK, f"{PREVIEW} ")) == [(True,)]
    except psycopg2.errors.InsufficientPrivilege:
        return False


def try_run_lock(connection: Connection) -> bool:
    """Take the run lock if it is free. Returns whether this session now holds it."""
    return bool(query(connection, "SELECT pg_try_advisory_lock(%s, %s)", LOCK)[0][0])


def release_run_lock(connection: Connection) -> None:
    """Release the lock before the session is closed.

    The server notices a closed session only a moment later. A next run that starts at once would find the lock held.
    """
    with suppress(psycopg2.Error):
        execute(connection, "SELECT pg_advisory_unlock_all()")


def _holder_in_words(connection: Connection) -> str:
    holder = lock_holder(connection)
    if holder is None:
        return "it ended just now"
    backend, name, user = holder
    return f"{name} (PostgreSQL backend {backend}, role {user})"


def lock_holder(connection: Connection) -> tuple[int, str, str] | None:
    """Backend pid, application_name and role of the session that holds the run lock, or None if it is free."""
    rows = query(connection, f"SELECT holder.pid, activity.application_name, activity.usename {HOLDER}", LOCK)
    return rows[0] if rows else None


def holds_run_lock(connection: Connection) -> bool:
    """Whether this session still holds the lock. The publish transaction checks it before it writes."""
    ((holds,),) = query(
        connection,
        """
        SELECT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
              AND classid = %s AND objid = %s AND objsubid = 2
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        )
        """,
        LOCK,
    )
    return bool(holds)
