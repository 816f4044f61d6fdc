"""Connects to PostgreSQL, sets up each session, and runs single statements.

PostgreSQL: chapters "libpq" and "Client Connection Defaults".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from lib.config.secret_value import Secret
from lib.config.secrets import libpq_remedy, missing_password, postgres_password
from lib.config.settings import Settings, postgres_keywords, require_postgres
from lib.errors import EltError, SettingsError
from lib.postgres.driver_errors import POOLER, refused, translate
from lib.stop import StopSignal, start_thread

Connection = psycopg2.extensions.connection
#: a statement as text, or composed by psycopg2.sql
Statement = str | sql.Composable
Arguments = tuple[object, ...] | dict[str, object] | None

OLDEST_SERVER = 150000
KEEPALIVES: dict[str, Any] = {
    "connect_timeout": "10",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}

#: What every session of a run sets, so that defaults of the role or the server have no effect. SET is used because a
#: pooler refuses the connection option `options=`. search_path comes first: with another path, a function that another
#: role made could be called instead of PostgreSQL's own.
SESSION = """
    SET search_path = pg_catalog;
    SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0;
    SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6;
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET client_min_messages = notice;
    SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
"""


@dataclass(frozen=True)
class Database:
    """The database that the settings name."""

    settings: Settings
    stop: StopSignal = field(default_factory=StopSignal)
    #: libpq keywords that take precedence over the settings
    keywords: dict[str, str] = field(default_factory=dict)
    #: seconds for which a statement outside of a publish waits for a lock
    lock_timeout: float = 5.0
    #: seconds after which an idle connection sends a query, so that no proxy or firewall closes it: some count only
    #: bytes of the protocol, and see nothing of TCP's own keepalives
    keep_alive: float = 2.0

    @cached_property
    def address(self) -> dict[str, str | int]:
        """libpq keywords, without a password. libpq adds the rest from its environment.

        Starts the embedded server if the settings ask for it and it is not running. Raises SettingsError if the
        settings name no database, DatabaseError if the embedded server does not start.
        """
        named = {**postgres_keywords(self.settings), **self.keywords}
        if self.keywords:
            return named
        require_postgres(self.settings)
        if self.settings.postgres.embedded:
            from lib.postgres.embedded.server import Server

            named |= Server.start(self.settings.state / "postgres").connect_args()
        return named

    @cached_property
    def password(self) -> Secret | None:
        """Read once, on the first connection, so that later ones do not depend on a file. None: libpq looks itself."""
        return postgres_password(self.settings, self.settings.postgres.user)

    def connect(self, purpose: str, *, stoppable: bool = True) -> Connection:
        """An autocommit session with every setting that a run relies on.

        purpose: the application_name in pg_stat_activity.
        stoppable: a stop cancels the session's running statement.
        Raises DatabaseError if the server cannot be reached (TooManyConnections if it has no slot left),
        CredentialError if it refuses the password, SettingsError if it does not know the user or the database, or is
        unsuitable (version, encoding, standby, pooler).
        """
        keywords = self.address
        if self.password is not None:
            keywords = keywords | {"password": self.password.reveal()}
        try:
            connection: Connection = psycopg2.connect(
                **KEEPALIVES | keywords, client_encoding="UTF8", application_name=purpose
            )
        except psycopg2.Error as error:
            if not str(error).strip():  # libpq has no words for it if this process can open no further socket
                os.close(os.open(os.devnull, os.O_RDONLY))
            raise self._refused(str(error)) from None
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(SESSION)
                cursor.execute(f"SET lock_timeout = {round(self.lock_timeout * 1000)}")
                _refuse_unfit(connection)
                if connection.server_version >= 170000:
                    cursor.execute("SET transaction_timeout = 0")
                # A script reads its temporary table several times. With PostgreSQL's default of 8MB, a larger table
                # would be read from a file each time. The SET fails if an event trigger ON login has already used a
                # temporary table; then the default remains.
                with suppress(psycopg2.errors.InvalidParameterValue):
                    cursor.execute("SET temp_buffers = '128MB'")
            _notice_dead_clients(connection)
        except psycopg2.Error as error:
            connection.close()
            # PgBouncer accepts a client at once and may hang up at its first statement; libpq loses what it said then
            remedy = f"If a pooler such as PgBouncer is in between: {POOLER}" if error.pgcode is None else ""
            raise translate(error, "the first statements of a connection", remedy=remedy) from error
        except EltError:
            connection.close()
            raise
        if stoppable:
            self.stop.watch(_canceller(connection))
        return connection

    @contextmanager
    def kept_alive(self, connection: Connection) -> Iterator[None]:
        """Keep a connection alive while it is idle, from a thread. The driver lets threads share a connection.

        Not for one that copies: a query would end the COPY. If the connection is lost, whoever uses it next notices.
        """
        done = threading.Event()

        def keep() -> None:
            while not done.wait(self.keep_alive):
                if connection.info.transaction_status == TRANSACTION_STATUS_IDLE:
                    with suppress(psycopg2.Error):
                        query(connection, "SELECT 1")

        start_thread(keep, "keep alive")
        try:
            yield
        finally:
            done.set()

    def _refused(self, message: str) -> EltError:
        missing = missing_password(self.settings) if "no password supplied" in message else ""
        return refused(message, libpq_remedy(message) if self.password is None else self.password.remedy, missing)


def _canceller(connection: Connection) -> Callable[[], None]:
    def cancel() -> None:
        with suppress(psycopg2.Error):
            connection.cancel()

    return cancel


def _refuse_unfit(connection: Connection) -> None:
    if connection.server_version < OLDEST_SERVER:
        raise SettingsError(f"PostgreSQL {connection.server_version // 10000} is too old: 15 or newer is needed")
    ((pid, encoding, standby),) = query(
        connection, "SELECT pg_backend_pid(), current_setting('server_encoding'), pg_is_in_recovery()"
    )
    if pid != connection.info.backend_pid:
        raise SettingsError(f"this connection goes through a pooler such as PgBouncer: {POOLER}")
    if encoding != "UTF8":
        raise SettingsError(
            f"database {connection.info.dbname} has encoding {encoding}; Keboola's text needs a UTF8 one:"
            " CREATE DATABASE .. ENCODING 'UTF8' TEMPLATE template0"
        )
    if standby:
        raise SettingsError(f"{address(connection)} is a standby and cannot be written to: connect to the primary")


def _notice_dead_clients(connection: Connection) -> None:
    """Let the server check during a statement whether the client still exists.

    Otherwise the session of a killed run keeps the run lock until its statement ends. Some platforms do not support it.
    """
    with suppress(psycopg2.errors.InvalidParameterValue):
        execute(connection, "SET client_connection_check_interval = '1s'")


def query(connection: Connection, statement: Statement, arguments: Arguments = None) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchall()


def execute(connection: Connection, statement: Statement, arguments: Arguments = None) -> int:
    """Run one statement and return the number of rows that it affected."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.rowcount


def address(connection: Connection) -> str:
    """The database's version, name, host and user, for messages. Contains no secret."""
    info = connection.info
    place = info.host if (info.host or "").startswith("/") else f"{info.host or 'localhost'}:{info.port}"
    major, minor = divmod(info.server_version, 10000)
    return f"PostgreSQL {major}.{minor}, database {info.dbname} on {place} as {info.user}"
