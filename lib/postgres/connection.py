"""Connections to PostgreSQL: how a run connects, what each session sets, statements and their rows.

PostgreSQL: chapters "libpq" and "Client Connection Defaults".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg2
from psycopg2 import sql

from lib.config.secrets import postgres_password
from lib.config.settings import Settings, postgres_keywords, require_postgres
from lib.errors import DatabaseError, EltError, SettingsError
from lib.postgres.driver_errors import translated
from lib.stop import StopSignal

#: a session
Connection = psycopg2.extensions.connection
#: a statement as text, or put together of names and values
Statement = str | sql.Composable
Arguments = tuple[object, ...] | dict[str, object] | None

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


@dataclass(frozen=True)
class Database:
    """The one database that the settings name."""

    settings: Settings
    stop: StopSignal = field(default_factory=StopSignal)
    #: libpq keywords that win over the settings
    keywords: dict[str, str] = field(default_factory=dict)

    @cached_property
    def address(self) -> dict[str, str | int]:
        """libpq keywords, without a password; libpq adds the rest from its environment.

        Starts the embedded server where that is meant and it does not run. Raises SettingsError where the settings name
        no database, DatabaseError where the embedded server does not start.
        """
        named = {**postgres_keywords(self.settings), **self.keywords}
        if self.keywords:
            return named
        require_postgres(self.settings)
        if self.settings.postgres.embedded:
            from lib.postgres.embedded.server import Server

            named |= Server.start(self.settings.state / "postgres").connect_args()
        return named

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
