"""Turns errors of the driver into ours: what was being done, PostgreSQL's message, and whether a retry may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from lib.errors import (
    ConnectionLost,
    CredentialError,
    DatabaseError,
    EltError,
    LockTimeout,
    SettingsError,
    TooManyConnections,
)

POOLER = "connect to PostgreSQL itself (host and port in elt_settings.toml). In a pooler the run lock does not work."

#: Why a connection is refused: words of the message, our error, and what to do. The driver gives no SQLSTATE for a
#: refused connection. The first match counts: libpq tries TLS and no TLS, and its message holds both answers.
REFUSALS: tuple[tuple[str, type[EltError], str], ...] = (
    (
        # PostgreSQL never says any of these
        "unsupported (options )?startup parameter|server login has been failing|pgbouncer cannot connect to server"
        "|bouncer config error|query_wait_timeout|client_login_timeout|no more connections allowed"
        r"|[Nn]o such (database|user)\b",
        SettingsError,
        f"This is the answer of a pooler such as PgBouncer: {POOLER}",
    ),
    (
        "too many clients already|remaining connection slots are reserved|too many connections for (role|database)",
        TooManyConnections,
        "The server is up, but gives no more connections. A run needs at least 3, and up to 2 more than [run] parallel."
        " End some (pg_stat_activity lists them), or raise the limit that the message is about: max_connections,"
        " ALTER ROLE .. CONNECTION LIMIT, or ALTER DATABASE .. CONNECTION LIMIT.",
    ),
    ("no password supplied", CredentialError, "{missing}"),
    (
        "(password|LDAP|PAM|RADIUS|BSD) authentication failed",
        CredentialError,
        "The password is wrong, or the user. {password}",
    ),
    (
        "(Peer|Ident|GSSAPI|SSPI|certificate) authentication failed",
        SettingsError,
        "For this connection pg_hba.conf asks for no password: user in elt_settings.toml must be the user whom it lets"
        ' in. With host = "localhost" another line of pg_hba.conf may apply.',
    ),
    (
        'role ".*" (does not exist|is not permitted to log in)',
        SettingsError,
        "Correct user under [postgres] in elt_settings.toml, or make the role: CREATE ROLE .. LOGIN PASSWORD ..",
    ),
    (
        'database ".*" does not exist',
        SettingsError,
        "Correct dbname under [postgres] in elt_settings.toml, or make the database: CREATE DATABASE ..",
    ),
    (
        'permission denied for database "',
        SettingsError,
        "Let the user in: GRANT CONNECT ON DATABASE .. TO ..",
    ),
    (
        "no pg_hba.conf entry|pg_hba.conf rejects connection",
        SettingsError,
        "The server's administrator must let this host, user and database in, by a line in pg_hba.conf"
        ' (or, where the message says "no encryption": write sslmode = "require" into elt_settings.toml).',
    ),
    (
        "SSL was required|certificate",
        SettingsError,
        "See sslmode under [postgres] in elt_settings.toml, and PGSSLROOTCERT for the server's certificate.",
    ),
    (
        'definition of service ".*" not found|service file ".*" not found',
        SettingsError,
        "Correct service under [postgres] in elt_settings.toml, or the file: ~/.pg_service.conf or PGSERVICEFILE.",
    ),
    ("the database system is", DatabaseError, "The server starts or stops: run again in a minute."),
    # for example in another language than English
    ("FATAL:", DatabaseError, "The server answered, so host and port are right; its log may say more. {password}"),
    ("", DatabaseError, "Is the server up, and are host and port in elt_settings.toml right?"),
)


def refused(message: str, password: str, missing: str) -> EltError:
    """Why libpq got no connection, with what to do.

    password: where the password came from. missing: where one was looked for in vain.
    """
    kind, remedy = next((kind, remedy) for words, kind, remedy in REFUSALS if re.search(words, message))
    said = message.strip().replace("\n", "\n    ")
    todo = remedy.format(password=password, missing=missing).strip()
    return kind(f"cannot connect to PostgreSQL: {said}\n    {todo}")


def message_of(error: psycopg2.Error) -> str:
    """PostgreSQL's message, detail and hint, each on its own line. Without the statement, which the caller knows."""
    lines = [error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else "no message"]
    lines += [text for text in (error.diag.message_detail, error.diag.message_hint) if text]
    return "\n    ".join(lines)


def translate(error: psycopg2.Error, subject: str, kind: type[EltError] = DatabaseError, remedy: str = "") -> EltError:
    """The driver's error as `kind`; as LockTimeout or ConnectionLost if a lock or the connection is the cause."""
    message = f"{subject}: {message_of(error)}" + (f"\n    {remedy}" if remedy else "")
    if error.pgcode in ("55P03", "40P01", "40001"):
        return LockTimeout(message)
    # when the connection breaks there is no SQLSTATE, and the driver raises one of these general errors
    lost = type(error) in (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError)
    if error.pgcode in ("57P01", "57P02", "57P03") or (error.pgcode is None and lost):
        return ConnectionLost(f"{message}\n    The connection to PostgreSQL was lost; run again once it is up.")
    return kind(message)


@contextmanager
def translated(subject: str, kind: type[EltError] = DatabaseError) -> Iterator[None]:
    """Raise an error of the driver as ours; `subject` says what was being done."""
    try:
        yield
    except psycopg2.Error as error:
        raise translate(error, subject, kind) from error
