"""The driver's errors become ours: what was being done, PostgreSQL's own words, and whether a retry may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from lib.errors import ConnectionLost, DatabaseError, EltError, LockTimeout


def message_of(error: psycopg2.Error) -> str:
    """PostgreSQL's message with its detail and hint, a line each; without the statement, which the caller knows."""
    lines = [error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else "no message"]
    lines += [text for text in (error.diag.message_detail, error.diag.message_hint) if text]
    return "\n    ".join(lines)


def translate(error: psycopg2.Error, subject: str, kind: type[EltError] = DatabaseError, remedy: str = "") -> EltError:
    """Our error for the driver's: `kind`, unless waiting or the connection is the cause."""
    message = f"{subject}: {message_of(error)}" + (f"\n    {remedy}" if remedy else "")
    if error.pgcode in ("55P03", "40P01", "40001"):
        return LockTimeout(message)
    # where the connection breaks off the server says nothing, and the driver raises any of its general errors
    lost = type(error) in (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError)
    if error.pgcode in ("57P01", "57P02", "57P03") or (error.pgcode is None and lost):
        return ConnectionLost(f"{message}\n    PostgreSQL went away; run again once it is up.")
    return kind(message)


@contextmanager
def translated(subject: str, kind: type[EltError] = DatabaseError) -> Iterator[None]:
    """Let no error of the driver out: ours says what was being done."""
    try:
        yield
    except psycopg2.Error as error:
        raise translate(error, subject, kind) from error
