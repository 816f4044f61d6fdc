"""Turns errors of the driver into ours: what was being done, PostgreSQL's message, and whether a retry may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from lib.errors import ConnectionLost, DatabaseError, EltError, LockTimeout


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
