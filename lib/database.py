"""PostgreSQL connections: how a run connects, its one lock, its transactions.

Nothing here knows of jobs. Facts behind the settings: PostgreSQL's manual, chapters "Client Connection Defaults" and
"Explicit Locking", and what was tried on servers 15 to 18.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from lib.credentials import postgres_password
from lib.errors import BusyError, DatabaseError, EltError, SettingsError
from lib.settings import Settings, postgres_keywords
from lib.stop import Stop

#: a session
Connection = psycopg2.extensions.connection
#: a statement as text, or put together of names and values
Statement = str | sql.Composable
Arguments = tuple[object, ...] | dict[str, object] | None

#: pg_locks shows the run lock as classid = LOCK[0], objid = LOCK[1] of the target database: "elt", 1
LOCK = (0x656C74, 1)
OLDEST_SERVER = 150000
KEEPALIVES: dict[str, Any] = {
    "connect_timeout": "10",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}

#: What every session of a run sets, whatever the role's or the server's defaults are. A pooler refuses `options=`,
#: hence SET. The path comes first: under another one, a function that somebody made could be called in place of
#: PostgreSQL's own.
SESSION = """
    SET search_path = pg_catalog;
    SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0;
    SET lock_timeout = 0; SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6;
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET client_min_messages = notice;
    SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
"""

#: Repeated before each script, for a plain SET of an earlier one would outlive it. pg_temp stays out of the path, so it
#: is first. Whatever could change the rows that a script makes is here: PostgreSQL's own default, not the role's or the
#: server's. parallel_tuple_cost is a tenth of it: a row that a script parses costs far more than handing it over does.
#: A hash table that processes share lives in /dev/shm, of which a container has 64 MB: too little for a million rows.
TRANSACTION = """
    SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
    SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
    SET LOCAL standard_conforming_strings = on; SET LOCAL check_function_bodies = on; SET LOCAL row_security = off;
    SET LOCAL array_nulls = on; SET LOCAL transform_null_equals = off; SET LOCAL quote_all_identifiers = off;
    SET LOCAL lc_monetary = 'C'; SET LOCAL lc_numeric = 'C'; SET LOCAL lc_time = 'C';
    SET LOCAL timezone_abbreviations = 'Default'; SET LOCAL default_text_search_config = 'pg_catalog.simple';
    SET LOCAL xmlbinary = 'base64'; SET LOCAL xmloption = 'content'; SET LOCAL gin_fuzzy_search_limit = 0;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off;
    SET LOCAL work_mem = '64MB'; SET LOCAL default_tablespace = '';
    SET LOCAL parallel_tuple_cost = 0.01; SET LOCAL enable_parallel_hash = off;
"""


class LockTimeout(DatabaseError):
    """Somebody held a lock for too long, or a deadlock was resolved against us: trying again may succeed."""


class ConnectionLost(DatabaseError):
    """The server or the network went away: nothing more can be done on this connection."""


class CommitInDoubt(ConnectionLost):
    """The connection was lost after COMMIT was sent and before its answer came."""


def explain(error: psycopg2.Error) -> str:
    """PostgreSQL's message with its detail and hint, a line each; without the statement, which the caller knows."""
    lines = [error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else "no message"]
    lines += [text for text in (error.diag.message_detail, error.diag.message_hint) if text]
    return "\n    ".join(lines)


def translate(error: psycopg2.Error, what: str, kind: type[EltError] = DatabaseError, remedy: str = "") -> EltError:
    """Our error for the driver's: `kind`, unless waiting or the connection is the cause."""
    message = f"{what}: {explain(error)}" + (f"\n    {remedy}" if remedy else "")
    if error.pgcode in ("55P03", "40P01", "40001"):
        return LockTimeout(message)
    # where the connection breaks off the server says nothing, and the driver raises any of its general errors
    lost = type(error) in (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError)
    if error.pgcode in ("57P01", "57P02", "57P03") or (error.pgcode is None and lost):
        return ConnectionLost(f"{message}\n    PostgreSQL went away; run again once it is up.")
    return kind(message)


@contextmanager
def translated(what: str, kind: type[EltError] = DatabaseError) -> Iterator[None]:
    """Let no error of the driver out: ours says what was being done."""
    try:
        yield
    except psycopg2.Error as error:
        raise translate(error, what, kind) from error


@dataclass(frozen=True)
class Database:
    """The one database that the settings name."""

    settings: Settings
    stop: Stop = field(default_factory=Stop)
    #: libpq keywords that win over the settings: an embedded server's address
    keywords: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> dict[str, str | int]:
        """libpq keywords, without a password; libpq adds the rest from its environment."""
        return {**postgres_keywords(self.settings), **self.keywords}

    def connect(self, purpose: str, *, stoppable: bool = True) -> Connection:
        """An autocommit session with every setting that a run relies on.

        purpose is shown in pg_stat_activity. A stop cancels what the session runs, unless `stoppable` is off.
        Raises DatabaseError where the server cannot be reached, SettingsError where it cannot serve.
        """
        keywords = self.address
        password = postgres_password(self.settings, self.settings.postgres.user)
        if password is not None:
            keywords = keywords | {"password": password.reveal()}
        try:
            connection: Connection = psycopg2.connect(
                **KEEPALIVES | keywords, client_encoding="UTF8", application_name=purpose
            )
        except psycopg2.Error as error:
            raise DatabaseError(
                f"cannot connect to PostgreSQL: {str(error).strip()}\n    {_connect_hint(str(error))}"
            ) from None
        connection.autocommit = True
        try:
            with translated("the first statements of a connection"), connection.cursor() as cursor:
                cursor.execute(SESSION)
                _refuse_unfit(connection)
                if connection.server_version >= 170000:
                    cursor.execute("SET transaction_timeout = 0")
                # a script reads its temporary table several times, with PostgreSQL's 8MB each time from a file; it is
                # too late where an event trigger ON login had a temporary table already
                with suppress(psycopg2.errors.InvalidParameterValue):
                    cursor.execute("SET temp_buffers = '128MB'")
            _notice_dead_clients(connection)
        except (psycopg2.Error, EltError):
            connection.close()
            raise
        if stoppable:
            self.stop.watch(_canceller(connection))
        else:
            execute(connection, "SET lock_timeout = '5s'")
        return connection


def _canceller(connection: Connection) -> Callable[[], None]:
    def cancel() -> None:
        with suppress(psycopg2.Error):
            connection.cancel()

    return cancel


def _connect_hint(message: str) -> str:
    if "password authentication failed" in message or "no password supplied" in message:
        return "Set the password: python main.py credentials set postgres"
    if "does not exist" in message:
        return "See [postgres] in elt_settings.toml; python main.py check --online shows what was tried."
    return "Is the server up, and are host and port in elt_settings.toml right?"


def _refuse_unfit(connection: Connection) -> None:
    if connection.server_version < OLDEST_SERVER:
        raise SettingsError(f"PostgreSQL {connection.server_version // 10000} is too old: 15 or newer is needed")
    ((pid, encoding, standby),) = query(
        connection, "SELECT pg_backend_pid(), current_setting('server_encoding'), pg_is_in_recovery()"
    )
    if pid != connection.info.backend_pid:
        raise SettingsError(
            "a connection pooler in transaction mode stands between us and PostgreSQL, where a run lock means nothing:"
            " connect to PostgreSQL itself (host and port in elt_settings.toml)"
        )
    if encoding != "UTF8":
        raise SettingsError(
            f"database {connection.info.dbname} has encoding {encoding}; Keboola's text needs a UTF8 one:"
            " CREATE DATABASE .. ENCODING 'UTF8' TEMPLATE template0"
        )
    if standby:
        raise SettingsError(f"{address(connection)} is a standby and cannot be written to: connect to the primary")


def _notice_dead_clients(connection: Connection) -> None:
    """Without this a killed run keeps its lock until its statement ends. Not every server platform can do it."""
    with suppress(psycopg2.errors.InvalidParameterValue):
        execute(connection, "SET client_connection_check_interval = '1s'")


def query(connection: Connection, statement: Statement, arguments: Arguments = None) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchall()


def execute(connection: Connection, statement: Statement, arguments: Arguments = None) -> int:
    """Run one statement and return the number of rows that it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.rowcount


def keep_alive(connection: Connection) -> None:
    """A sign of life on an idle session, for firewalls; raises ConnectionLost early where it is gone."""
    with translated("the connection that holds the run lock"):
        query(connection, "SELECT 1")


def address(connection: Connection) -> str:
    """Which database this is, for people: never with a secret."""
    info = connection.info
    place = info.host if (info.host or "").startswith("/") else f"{info.host or 'localhost'}:{info.port}"
    major, minor = divmod(info.server_version, 10000)
    return f"PostgreSQL {major}.{minor}, database {info.dbname} on {place} as {info.user}"


# ---- the run lock -------------------------------------------------------------------------------------------------


def run_name(now: datetime) -> str:
    """The application_name of the session that holds the lock: all that other roles may see of it, 63 bytes at most."""
    host = socket.gethostname().split(".")[0].encode("ascii", "replace").decode()[:20]
    return f"elt pid {os.getpid()} on {host} since {now:%Y-%m-%d %H:%M:%SZ}"


def take_run_lock(connection: Connection, wait: Callable[[float], None] | None = None) -> None:
    """Take the session lock that makes this the only run in this database.

    Without `wait` a held lock raises BusyError that says who holds it; with it (a pause in seconds) the lock is asked
    for once a second. A blocking pg_advisory_lock() would hold a snapshot and keep VACUUM from its work.
    """
    while not try_run_lock(connection):
        if wait is None:
            raise BusyError(
                f"another run is at work here: {_holder_in_words(connection)}. Nothing was done."
                " Wait for it, or queue behind it with --wait."
            )
        wait(1.0)


def try_run_lock(connection: Connection) -> bool:
    """Take the run lock if nobody holds it; says whether it is ours now."""
    return bool(query(connection, "SELECT pg_try_advisory_lock(%s, %s)", LOCK)[0][0])


def release_run_lock(connection: Connection) -> None:
    """Free the lock before the session is closed: the server notices that a moment later, too late for the next run."""
    with suppress(psycopg2.Error):
        execute(connection, "SELECT pg_advisory_unlock_all()")


def _holder_in_words(connection: Connection) -> str:
    holder = lock_holder(connection)
    if holder is None:
        return "it ended just now"
    backend, name, user = holder
    return f"{name} (PostgreSQL backend {backend}, role {user})"


def lock_holder(connection: Connection) -> tuple[int, str, str] | None:
    """Backend, application_name and role of the session that holds the run lock; None where nobody does."""
    rows = query(
        connection,
        """
        SELECT holder.pid, activity.application_name, activity.usename
        FROM pg_locks AS holder
        JOIN pg_stat_activity AS activity USING (pid)
        WHERE holder.locktype = 'advisory' AND holder.granted
          AND holder.classid = %s AND holder.objid = %s AND holder.objsubid = 2
          AND holder.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """,
        LOCK,
    )
    return rows[0] if rows else None


def holds_run_lock(connection: Connection) -> bool:
    """Whether this very session still holds the lock; asked inside the publish transaction."""
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


# ---- transactions ---------------------------------------------------------------------------------------------------


@contextmanager
def transaction(
    connection: Connection,
    *,
    lock_timeout: float,
    run_date: date | None = None,
    search_path: str = "pg_catalog",
    commit: bool = True,
) -> Iterator[None]:
    """READ COMMITTED READ WRITE with the run's settings; lock_timeout in seconds. Rolled back on any exception.

    lock_timeout must exceed deadlock_timeout (1 s): an autovacuum in the way gives up only after that. With `commit`
    False it is rolled back at the end, too. Raises CommitInDoubt where nobody knows whether it was committed.
    """
    execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        reset(connection, lock_timeout=lock_timeout, run_date=run_date, search_path=search_path)
        yield
        if commit:
            _commit(connection)
    finally:
        # also reached when COMMIT itself failed, or the connection is gone
        if not connection.closed and connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            try:
                execute(connection, "ROLLBACK")
            except psycopg2.Error:
                connection.close()


def _commit(connection: Connection) -> None:
    try:
        execute(connection, "COMMIT")
    except psycopg2.Error as error:
        told = translate(error, "COMMIT")
        if isinstance(told, ConnectionLost):
            raise CommitInDoubt(str(told)) from error
        raise


def reset(connection: Connection, *, lock_timeout: float, run_date: date | None, search_path: str) -> None:
    """Give the transaction the run's own settings again; scripts read run_date as elt.run_date()."""
    own = (
        f"SET LOCAL search_path = {search_path}; SET LOCAL lock_timeout = '{round(lock_timeout * 1000)}ms';"
        f" SET LOCAL elt.run_date = '{run_date or ''}'"
    )
    execute(connection, TRANSACTION + own)
