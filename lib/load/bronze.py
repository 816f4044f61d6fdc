"""Staged rows into a bronze table by DELETE and INSERT: never TRUNCATE, which readers notice."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from lib.config.jobs import Load
from lib.errors import LoadError
from lib.load.contract import Contract, read_contract
from lib.load.guards import Accepted, check_size
from lib.load.staging_table import Staging
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.maintenance import has_statistics


@dataclass(frozen=True)
class Loaded:
    """What became of a bronze table."""

    rows: int
    rows_before: int


def publish_bronze(
    connection: Connection, load: Load, contract: Contract, staging: Staging, rows_staged: int, accepted: Accepted
) -> Loaded:
    """Replace the rows of a bronze table by the staged ones, columns matched by name, inside the caller's transaction.

    Raises LoadError where a guard of the registry speaks up, where the table is no longer what the contract says, or
    where staging no longer holds what COPY counted.
    """
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
        check_size(load, rows_before, rows_staged, accepted)
        rows = execute(
            connection,
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, names, names, staging.identifier),
        )
        # about as many rows as yesterday: its statistics serve the scripts, until autovacuum makes today's
        if abs(rows - rows_before) > rows_before / 10 or not has_statistics(connection, load.schema, load.name):
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
