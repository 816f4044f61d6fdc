"""Slices of an export into a staging table by COPY.

PostgreSQL: COPY, section "CSV Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from lib.errors import EltError, LoadError
from lib.extract import ByteStream, Slice, SourceTable
from lib.load.contract import Contract
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate

#: takes every right on a table from all but its owner
REVOKE = """
DO $revoke$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT DISTINCT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
        FROM pg_class CROSS JOIN aclexplode(relacl) AS acl
        WHERE oid = {name}::regclass AND acl.grantee <> relowner
    LOOP
        EXECUTE 'REVOKE ALL ON ' || {name} || ' FROM ' || grantee;
    END LOOP;
END
$revoke$
"""
#: bytes that one read of a COPY asks for
BLOCK = 256 * 1024


@dataclass(frozen=True)
class Staging:
    """A table that only this run reads: all text, unlogged, named after run and job."""

    name: str
    #: bronze columns that the export fills, in the export's order; the table itself has them in bronze's
    columns: tuple[str, ...]
    has_nulls: bool

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("elt_staging", self.name)


def sweep_staging(connection: Connection) -> None:
    """Drop what runs before this one left behind; called under the run lock, so nobody needs it."""
    for (name,) in query(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'"):
        drop_staging(connection, name)


def drop_staging(connection: Connection, name: str, *, seconds: float = 2.0) -> None:
    """Drop one staging table; one that a dying COPY holds for longer than `seconds` is for the next sweep."""
    drop = sql.SQL("SET LOCAL lock_timeout = {}; DROP TABLE IF EXISTS {}")
    with suppress(psycopg2.errors.LockNotAvailable):
        execute(connection, drop.format(sql.Literal(round(seconds * 1000)), sql.Identifier("elt_staging", name)))


def create_staging(
    connection: Connection, name: str, contract: Contract, found: Iterable[str], source: SourceTable
) -> Staging:
    """An empty staging table for one export; an earlier try's is replaced. found: bronze columns in the export's order.

    Its columns stand in bronze's order: INSERT then takes each row as it is, which is a quarter faster. Nobody else
    gets a right on it, whatever the role's default privileges are: a trigger on it would run as us.
    """
    staging = Staging(name, tuple(found), source.has_nulls)
    drop_staging(connection, name)
    try:
        texts = sql.SQL(", ").join(
            sql.SQL("{} text").format(sql.Identifier(column))
            for column in contract.columns
            if column in staging.columns
        )
        # one query, which is one transaction: nobody sees the table before the rights are gone
        execute(
            connection,
            sql.SQL("CREATE UNLOGGED TABLE {table} ({columns}); {revoke}").format(
                table=staging.identifier,
                columns=texts,
                revoke=sql.SQL(REVOKE).format(name=sql.Literal(staging.identifier.as_string(connection))),
            ),
        )
    except psycopg2.Error as error:
        raise translate(error, f"{source.id}: cannot make its staging table", LoadError) from error
    return staging


def copy_slice(connection: Connection, staging: Staging, csv_slice: Slice, table: str) -> int:
    """COPY one slice into staging, whole or not at all; returns the rows that PostgreSQL counted.

    table: the source table, for messages.
    In tables without NULLs an empty unquoted field is an empty string, hence FORCE_NOT_NULL (docs/keboola.md 7.5).
    Raises LoadError with slice and line, or whatever reading the slice raised.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    never_null = sql.SQL("") if staging.has_nulls else sql.SQL(", FORCE_NOT_NULL ({})").format(columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv{})").format(staging.identifier, columns, never_null)
    with csv_slice.open() as stream:
        source = _CopySource(QuotedEndMarkers(stream) if len(staging.columns) == 1 else stream)
        try:
            with connection.cursor() as cursor:
                # COPY FROM calls read() alone; the stub wants readline(), too
                cursor.copy_expert(statement.as_string(connection), source, BLOCK)  # type: ignore[arg-type]
                return cursor.rowcount
        except psycopg2.Error as error:
            if source.error is not None:
                raise source.error from None
            subject = f"{table}: slice {csv_slice.number} ({csv_slice.name}){_place(error)}"
            raise translate(error, subject, LoadError, _remedy(error)) from error


class _CopySource:
    """What COPY reads from. The driver turns an exception of read() into its own error; here the first is kept."""

    def __init__(self, stream: ByteStream | QuotedEndMarkers) -> None:
        self._stream = stream
        self.error: EltError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except EltError as error:
            self.error = error
            raise


class QuotedEndMarkers:
    """A one-column CSV stream in which a bare `\\.` line is data.

    Up to PostgreSQL 17, COPY takes an unquoted line of just these two characters for the end of the data, and what
    follows is lost (PostgreSQL 17: COPY, "CSV Format"). With more columns such a line cannot occur.
    """

    _MARKER = re.compile(rb"\n\\\.(?=\r?\n)")
    #: the end of a block that may turn out to be a marker, with the newline before it
    _UNFINISHED = re.compile(rb"\n(?:\\(?:\.\r?)?)?\Z")

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._inside_quotes = False
        # a newline of ours before the first line, and one after the last, make every marker look the same
        self._held: bytes | None = b"\n"
        self._ours = 1

    def read(self, size: int) -> bytes:
        """About `size` bytes, a little more where markers were quoted; b"" at the end."""
        ready = b""
        while not ready and self._held is not None:
            block = self._stream.read(size)
            data = self._held + (block or b"\n")
            unfinished = self._UNFINISHED.search(data, max(0, len(data) - 4)) if block else None
            end = unfinished.start() if unfinished else len(data) - (not block)
            self._held = data[end:] if block else None
            if end:
                ready = self._quote(data, end)[self._ours :]
                self._ours = 0
        return ready

    def _quote(self, data: bytes, end: int) -> bytes:
        """data up to `end`, with quotes around each bare marker; text between quotes is left as it is."""
        fragments: list[bytes] = []
        start = 0
        for marker in self._MARKER.finditer(data) if b"\n\\." in data else ():
            self._count_quotes(data, start, marker.start())
            fragments += data[start : marker.start()], marker[0] if self._inside_quotes else b'\n"\\."'
            start = marker.end()
        self._count_quotes(data, start, end)
        return b"".join([*fragments, data[start:end]])

    def _count_quotes(self, data: bytes, start: int, end: int) -> None:
        self._inside_quotes ^= data.count(b'"', start, end) % 2 == 1


def _place(error: psycopg2.Error) -> str:
    """Line and column that COPY was at. The context's copy of the row stays out: it can be megabytes."""
    found = re.search(r"line (\d+)(?:, column ([^:]+))?", error.diag.context or "")
    if not found:
        return ""
    return f", line {found[1]}" + (f", column {found[2]}" if found[2] else "")


def _remedy(error: psycopg2.Error) -> str:
    if error.pgcode != "22021":
        return ""
    is_nul = (error.diag.message_primary or "").endswith(": 0x00")
    cause = "PostgreSQL's text holds no NUL byte" if is_nul else "these bytes are no UTF-8"
    return f"{cause}: fix the value in Keboola. The rows loaded before stay."
