"""Slices into staging by COPY, staged rows into bronze by DELETE and INSERT: never TRUNCATE, which readers notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from lib.contract import Contract, read_contract
from lib.database import Connection, execute, query, translate
from lib.errors import EltError, LoadError
from lib.extractors import ByteStream, Slice, SourceTable
from lib.guards import Accepted, check_size
from lib.jobs import Job, Load

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


@dataclass(frozen=True)
class Loaded:
    """What became of a bronze table."""

    rows: int
    rows_before: int


# ---- staging --------------------------------------------------------------------------------------------------------


def sweep_staging(connection: Connection) -> None:
    """Drop what runs before this one left behind; called under the run lock, so nobody needs it."""
    for (name,) in query(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'"):
        drop_staging(connection, name)


def drop_staging(connection: Connection, name: str, *, patience: float = 2.0) -> None:
    """Drop one staging table; one that a dying COPY holds for longer than `patience` seconds is for the next sweep."""
    drop = sql.SQL("SET LOCAL lock_timeout = {}; DROP TABLE IF EXISTS {}")
    with suppress(psycopg2.errors.LockNotAvailable):
        execute(connection, drop.format(sql.Literal(round(patience * 1000)), sql.Identifier("elt_staging", name)))


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


def copy_slice(connection: Connection, staging: Staging, piece: Slice, of: str) -> int:
    """COPY one slice into staging, whole or not at all; returns the rows that PostgreSQL counted.

    of: the source table, for messages.
    In tables without NULLs an unquoted nothing is an empty string, hence FORCE_NOT_NULL (API note 7.5).
    Raises LoadError with slice and line, or whatever reading the slice raised.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    never_null = sql.SQL("") if staging.has_nulls else sql.SQL(", FORCE_NOT_NULL ({})").format(columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv{})").format(staging.identifier, columns, never_null)
    with piece.open() as stream:
        reader = _Reader(QuotedEndMarkers(stream) if len(staging.columns) == 1 else stream)
        try:
            with connection.cursor() as cursor:
                # COPY FROM calls read() alone; the stub wants readline(), too
                cursor.copy_expert(statement.as_string(connection), reader, BLOCK)  # type: ignore[arg-type]
                return cursor.rowcount
        except psycopg2.Error as error:
            if reader.error is not None:
                raise reader.error from None
            what = f"{of}: slice {piece.number} ({piece.name}){_place(error)}"
            raise translate(error, what, LoadError, _remedy(error)) from error


class _Reader:
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
        pieces: list[bytes] = []
        start = 0
        for marker in self._MARKER.finditer(data) if b"\n\\." in data else ():
            self._count_quotes(data, start, marker.start())
            pieces += data[start : marker.start()], marker[0] if self._inside_quotes else b'\n"\\."'
            start = marker.end()
        self._count_quotes(data, start, end)
        return b"".join([*pieces, data[start:end]])

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
    return f"{cause}: mend the value in Keboola. The rows loaded before stay."


# ---- bronze ---------------------------------------------------------------------------------------------------------


def publish_bronze(
    connection: Connection, job: Job, contract: Contract, staging: Staging, rows_staged: int, accepted: Accepted
) -> Loaded:
    """Replace the rows of a bronze table by the staged ones, columns matched by name, inside the caller's transaction.

    Raises LoadError where a guard of the registry speaks up, where the table is no longer what the contract says, or
    where staging no longer holds what COPY counted.
    """
    load = job.target
    if read_contract(connection, load) != contract:
        raise LoadError(
            f"{load.table}: its columns were changed while its rows were exported. Nothing was changed; run again."
        )
    target = sql.Identifier(load.schema, load.name)
    names = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    try:
        rows_before = execute(connection, sql.SQL("DELETE FROM {}").format(target))
        if _holds_rows_back(connection, load):
            raise LoadError(
                f"{load.table}: a trigger or rule keeps its rows from being replaced: drop it, or load another table"
            )
        check_size(job, rows_before, rows_staged, accepted)
        rows = execute(
            connection,
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, names, names, staging.identifier),
        )
        # about as many rows as yesterday: its statistics serve the scripts, until autovacuum makes today's
        if abs(rows - rows_before) > rows_before / 10 or not _has_statistics(connection, load):
            execute(connection, sql.SQL("ANALYZE {}").format(target))
    except psycopg2.Error as error:
        raise translate(error, f"cannot load {load.table}", LoadError) from error
    if rows != rows_staged:
        raise LoadError(
            f"{load.table}: {rows_staged:,} rows were staged, {rows:,} arrived;"
            " the server was restarted meanwhile, or a trigger drops rows. Nothing was changed; run again."
        )
    return Loaded(rows, rows_before)


def _holds_rows_back(connection: Connection, load: Load) -> bool:
    """Whether rows are left after the DELETE; looked for only where something could have kept them, for it is slow."""
    target = sql.Identifier(load.schema, load.name)
    ((holds,),) = query(
        connection,
        sql.SQL(
            "SELECT CASE WHEN relhastriggers OR relhasrules OR relhassubclass THEN EXISTS (SELECT FROM {})"
            " ELSE false END"
            " FROM pg_class WHERE oid = %s::regclass"
        ).format(target),
        (target.as_string(connection),),
    )
    return bool(holds)


def _has_statistics(connection: Connection, load: Load) -> bool:
    """They are gone after a restore, and after an upgrade of PostgreSQL to 17 or older."""
    ((has,),) = query(
        connection,
        "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = %s AND tablename = %s)",
        (load.schema, load.name),
    )
    return bool(has)


def vacuum(connection: Connection, tables: Sequence[str]) -> list[str]:
    """VACUUM tables after the commit; returns what PostgreSQL had to say.

    Without ANALYZE: where rows became many more or fewer, the publish transaction had to do that already.

    TRUNCATE false: a truncating VACUUM makes readers wait. SKIP_LOCKED: somebody else's lock is no reason to wait.
    """
    del connection.notices[:]
    for table in tables:
        execute(connection, f"VACUUM (TRUNCATE false, SKIP_LOCKED) {table}")
    return [notice.strip() for notice in connection.notices if notice.startswith("WARNING")]
