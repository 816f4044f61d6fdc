"""Moves staged rows into a bronze table with DELETE and INSERT. TRUNCATE would make readers wait or see no rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg2
from psycopg2 import sql

from lib.config.jobs import Load
from lib.errors import LoadError
from lib.load.changes import count_changes
from lib.load.contract import Contract, read_contract
from lib.load.guards import Accepted, check_size
from lib.load.staging_table import Staging
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.maintenance import has_statistics


@dataclass(frozen=True)
class Loaded:
    """Number of rows of a bronze table after and before the load, and a warning to report."""

    rows: int
    rows_before: int
    warning: str = field(default="", compare=False)


def publish_bronze(
    connection: Connection, load: Load, contract: Contract, staging: Staging, rows_staged: int, accepted: Accepted
) -> Loaded:
    """Replace the rows of a bronze table by the staged ones, inside the caller's transaction. Columns match by name.

    Raises LoadError if a guard refuses the load, if the table's columns no longer match the contract, or if the number
    of rows inserted differs from the number that COPY counted.
    """
    if read_contract(connection, load) != contract:
        raise LoadError(
            f"{load.table}: its columns were changed during the export. The rows loaded before stay; run again."
        )
    target = sql.Identifier(load.schema, load.name)
    names = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    try:
        rows_before = execute(connection, sql.SQL("DELETE FROM {}").format(target))
        if _holds_rows_back(connection, load):
            raise LoadError(
                f"{load.table}: a trigger or rule prevents DELETE of its rows: drop it, or load another table"
            )
        warning = check_size(load, rows_before, rows_staged, accepted)
        rows = execute(
            connection,
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, names, names, staging.identifier),
        )
        # if the number of rows is similar, the old statistics are good enough until autovacuum makes new ones
        if abs(rows - rows_before) > rows_before / 10 or not has_statistics(connection, load.schema, load.name):
            execute(connection, sql.SQL("ANALYZE {}").format(target))
        if text := _rewritten(connection, load, names, staging):
            warning = "\n".join(filter(None, (warning, text)))
    except psycopg2.Error as error:
        raise translate(error, f"cannot load {load.table}", LoadError, _remedy(error, load)) from error
    if rows != rows_staged:
        raise LoadError(
            f"{load.table}: {rows_staged:,} rows were staged, {rows:,} arrived;"
            " the server was restarted meanwhile, or a trigger drops rows. The rows loaded before stay; run again."
        )
    count_changes(connection, target, rows_before, rows)
    return Loaded(rows, rows_before, warning)


def _remedy(error: psycopg2.Error, load: Load) -> str:
    """What to do if a column is no text, or if a publication does not allow DELETE (PostgreSQL: "Publication")."""
    if error.pgcode == "42804":
        command = f"ALTER TABLE {load.table} ALTER COLUMN .. TYPE text;"
        return f"Bronze columns are text. Type in psql, then run again: {command} A silver script may cast it."
    if error.pgcode != "55000" or "replica identity" not in str(error):
        return ""
    command = f"ALTER TABLE {load.table} REPLICA IDENTITY FULL;"
    return f"A publication cannot send its deleted rows. Type in psql, then run again: {command}"


def _rewritten(connection: Connection, load: Load, names: sql.Composable, staging: Staging) -> str:
    """A warning if triggers of the table changed rows, so that bronze is not as received. Most tables have none."""
    target = sql.Identifier(load.schema, load.name)
    triggers = query(
        connection,
        "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
        " AND tgenabled IN ('O', 'A') AND tgtype & 4 <> 0 ORDER BY tgname",
        (target.as_string(connection),),
    )
    if not triggers:
        return ""
    ((rows,),) = query(
        connection,
        sql.SQL("SELECT count(*) FROM (SELECT {} FROM {} EXCEPT ALL SELECT {} FROM {}) AS missing").format(
            names, staging.identifier, names, target
        ),
    )
    drop = " ".join(f"DROP TRIGGER {name} ON {load.table};" for (name,) in triggers)
    return (
        rows and f"{load.table}: triggers change {rows:,} rows, so they are not as received. To load them as is: {drop}"
    )


def _holds_rows_back(connection: Connection, load: Load) -> bool:
    """Whether rows are left after the DELETE.

    This scan is slow, so it runs only if the table has triggers, rules or child tables, which could keep rows.
    """
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
