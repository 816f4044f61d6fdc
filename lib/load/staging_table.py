"""Copies the slices of an export into a staging table with COPY.

PostgreSQL: COPY, section "CSV Format".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from lib.errors import EltError, LoadError
from lib.extract import Slice, SourceTable
from lib.load.contract import Contract
from lib.load.slice_limits import LimitedStream, Readable, RowLimit
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate

#: revokes every right on a table from everybody except its owner
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
#: bytes per read of a COPY
BLOCK = 256 * 1024


@dataclass(frozen=True)
class Staging:
    """A table that only this run reads: all columns text, unlogged, named after run and job."""

    name: str
    #: bronze columns that the export fills, in the export's order (the table itself has bronze's order)
    columns: tuple[str, ...]
    has_nulls: bool

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("elt_staging", self.name)


@dataclass(frozen=True)
class Copied:
    """What COPY took from one slice."""

    rows: int
    #: of CSV, unpacked
    bytes: int
    #: how often the slice was asked for; more than 1 after cut connections
    tries: int


def sweep_staging(connection: Connection, keep: Collection[str] = ()) -> None:
    """Drop all staging tables but those to keep. Called under the run lock, so no other run uses them."""
    found = query(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'")
    names = [name for (name,) in found if name not in keep]
    # some at once, because a transaction for each takes longer; not all, because each takes room in the table of locks
    for first in range(0, len(names), 30):
        some = names[first : first + 30]
        if not drop_staging(connection, *some):
            for name in some:
                drop_staging(connection, name)


def drop_staging(connection: Connection, *names: str, seconds: float = 2.0) -> bool:
    """Drop staging tables and return True. If a COPY that is being ended locks one for longer than `seconds`, leave all
    to the next sweep and return False."""
    tables = sql.SQL(", ").join(sql.Identifier("elt_staging", name) for name in names)
    drop = sql.SQL("SET LOCAL lock_timeout = {}; DROP TABLE IF EXISTS {}")
    with suppress(psycopg2.errors.LockNotAvailable):
        execute(connection, drop.format(sql.Literal(round(seconds * 1000)), tables))
        return True
    return False


def create_staging(
    connection: Connection, name: str, contract: Contract, found: Iterable[str], source: SourceTable
) -> Staging:
    """Make an empty staging table for one export; replaces the one of an earlier try.

    found: bronze columns in the export's order. The table has bronze's order: INSERT then need not rearrange each row,
    which is a quarter faster. All rights of other roles on the table are revoked, whatever the default privileges are,
    because a trigger that another role puts on it would run with our rights. Raises LoadError.
    """
    staging = Staging(name, tuple(found), source.has_nulls)
    texts = [column for column in contract.columns if column in staging.columns]
    try:
        create_table(connection, name, [(column, "text") for column in texts])
    except psycopg2.Error as error:
        raise translate(error, f"{source.id}: cannot make its staging table", LoadError) from error
    return staging


def create_table(connection: Connection, name: str, columns: Iterable[tuple[str, str]]) -> None:
    """Make an empty unlogged table in elt_staging, from names and types of its columns; replaces one of that name."""
    drop_staging(connection, name)
    table = sql.Identifier("elt_staging", name)
    # sent as one query, so it is one transaction: no role sees the table before its rights are revoked
    execute(
        connection,
        sql.SQL("CREATE UNLOGGED TABLE {table} ({columns}); {revoke}").format(
            table=table,
            columns=sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t)) for n, t in columns),
            revoke=sql.SQL(REVOKE).format(name=sql.Literal(table.as_string(connection))),
        ),
    )


def copy_slice(
    connection: Connection,
    staging: Staging,
    csv_slice: Slice,
    table: str,
    limit: RowLimit | None = None,
) -> Copied:
    """COPY one slice into staging, completely or not at all. The rows are those that PostgreSQL counted.

    table: the source table, for messages. limit: the most rows.
    In a table without NULLs an empty unquoted field means an empty string, hence FORCE_NOT_NULL (docs/keboola.md 7.5).
    Raises LoadError with slice and line, or the error that reading the slice raised.
    """
    name = f"{table}: slice {csv_slice.number} ({csv_slice.name})"
    columns = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    never_null = sql.SQL("") if staging.has_nulls else sql.SQL(", FORCE_NOT_NULL ({})").format(columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv{})").format(staging.identifier, columns, never_null)
    with csv_slice.open() as stream:
        limited = LimitedStream(stream, name, len(staging.columns), limit)
        source = _CopySource(QuotedEndMarkers(limited) if len(staging.columns) == 1 else limited)
        try:
            with connection.cursor() as cursor:
                # COPY FROM only calls read(); the type stub also requires readline()
                cursor.copy_expert(statement.as_string(connection), source, BLOCK)  # type: ignore[arg-type]
                # a source that never asks twice does not count its tries
                return Copied(cursor.rowcount, source.bytes, getattr(stream, "tries", 1))
        except psycopg2.Error as error:
            if source.error is not None:
                raise source.error from None
            raise translate(error, f"{name}{_place(error)}", LoadError, _remedy(error)) from error


class _CopySource:
    """The stream that COPY reads. The driver replaces an exception of read() by its own; `error` keeps the original.
    `bytes` counts what was read."""

    def __init__(self, stream: LimitedStream | QuotedEndMarkers) -> None:
        self._stream = stream
        self.bytes = 0
        self.error: EltError | None = None

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
            self.bytes += len(data)
            return data
        except EltError as error:
            self.error = error
            raise


class QuotedEndMarkers:
    """A one-column CSV stream in which each unquoted line `\\.` is put in quotes, so that COPY reads it as data.

    Up to PostgreSQL 17, COPY takes an unquoted line of just these two characters as the end of the data and ignores
    what follows (PostgreSQL 17: COPY, "CSV Format"). With more than one column such a line cannot occur.
    """

    _MARKER = re.compile(rb"\n\\\.(?=\r?\n)")
    #: a possible beginning of a marker at the end of a block, with the newline before it
    _UNFINISHED = re.compile(rb"\n(?:\\(?:\.\r?)?)?\Z")

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._inside_quotes = False
        # we add a newline before the first line and one after the last, so that one pattern matches every marker
        self._held: bytes | None = b"\n"
        self._ours = 1

    def read(self, size: int) -> bytes:
        """About `size` bytes, slightly more if markers were quoted; b"" at the end."""
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
        """`data` up to `end`, with each unquoted marker put in quotes. Text that is already in quotes is unchanged."""
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
    """Line and column at which COPY failed. The context also repeats the row; it is left out, it can be megabytes."""
    found = re.search(r"line (\d+)(?:, column ([^:]+))?", error.diag.context or "")
    if not found:
        return ""
    return f", line {found[1]}" + (f", column {found[2]}" if found[2] else "")


def _remedy(error: psycopg2.Error) -> str:
    if error.pgcode != "22021":
        return ""
    is_nul = (error.diag.message_primary or "").endswith(": 0x00")
    cause = "PostgreSQL's text cannot hold a NUL byte" if is_nul else "these bytes are not UTF-8"
    return f"{cause}: fix the value in the source. The rows loaded before stay."
