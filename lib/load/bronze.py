"""Makes the rows of a bronze table equal to the staged ones, with DELETE and INSERT.

TRUNCATE would make readers wait or see no rows.

Usually only the rows that differ are written (`difference`). Every row is replaced if the table was empty, if most of
its rows differ, or if it cannot be compared or was written since.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import psycopg2
from psycopg2 import sql

from lib.config.jobs import Load
from lib.errors import LoadError
from lib.load.changes import recording
from lib.load.contract import Contract, read_contract
from lib.load.difference import TREE, Difference
from lib.load.guards import Accepted, check_size
from lib.load.staging_table import Staging
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.maintenance import analyze, has_statistics

#: the statements that drop what may change inserted rows: triggers and rules of a table, its partitions and children
DROP_CODE = f"""
    {TREE}
    SELECT format('DROP TRIGGER %%I ON %%s;', tgname, tgrelid::regclass)
    FROM tree JOIN pg_trigger ON tgrelid = tree.oid
    WHERE NOT tgisinternal AND tgparentid = 0 AND tgenabled IN ('O', 'A') AND tgtype & 4 <> 0
    UNION ALL
    SELECT format('DROP RULE %%I ON %%s;', rulename, ev_class::regclass)
    FROM tree JOIN pg_rewrite ON ev_class = tree.oid
    WHERE ev_enabled IN ('O', 'A') AND ev_type <> '1'
    ORDER BY 1
"""


@dataclass(frozen=True)
class Loaded:
    """What a load did to a bronze table."""

    #: in the table, after and before
    rows: int
    rows_before: int
    #: rows that were written; each row of the table if all were replaced
    deleted: int = field(default=0, compare=False)
    inserted: int = field(default=0, compare=False)
    #: the rows that were deleted and inserted; None if all were replaced
    difference: Difference | None = field(default=None, compare=False)
    #: `Difference.fingerprint` before and after; None: unknown
    found: str | None = field(default=None, compare=False)
    left: str | None = field(default=None, compare=False)
    #: to report
    warning: str = field(default="", compare=False)


def publish_bronze(
    connection: Connection,
    load: Load,
    contract: Contract,
    staging: Staging,
    rows_staged: int,
    accepted: Accepted,
    difference: Difference | None = None,
) -> Loaded:
    """Make a bronze table equal to the staged rows, inside the caller's transaction. Columns match by name.

    The caller has locked the table against writers. difference: what was found when both were compared; without it
    every row is replaced.
    Raises LoadError if a guard refuses the load, if the table's columns no longer match the contract, or if the rows
    that arrived are not the ones that were staged.
    """
    if read_contract(connection, load) != contract:
        raise LoadError(
            f"{load.table}: its columns were changed during the export. The rows loaded before stay; run again."
        )
    target = sql.Identifier(load.schema, load.name)
    names = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
    try:
        holds = difference is not None and difference.holds(connection)
        if difference and holds and difference.is_worth_it:
            loaded = _apply(connection, load, difference, rows_staged, accepted)
        else:
            loaded = _replace(connection, load, names, staging, rows_staged, accepted)
        # if the number of rows is similar, the old statistics are good enough until autovacuum makes new ones
        if abs(loaded.rows - loaded.rows_before) > loaded.rows_before / 10 or not has_statistics(
            connection, load.schema, load.name
        ):
            analyze(connection, target.as_string(connection))
        rewritten = _rewritten(connection, load, names, staging)
    except psycopg2.Error as error:
        raise translate(error, f"cannot load {load.table}", LoadError, _remedy(error, load)) from error
    if loaded.rows != rows_staged:
        raise LoadError(
            f"{load.table}: {rows_staged:,} rows were staged, {loaded.rows:,} arrived;"
            " the server was restarted meanwhile, or a trigger drops rows. The rows loaded before stay; run again."
        )
    return replace(
        loaded,
        found=difference.fingerprint(connection, after=False) if difference and holds else None,
        left=difference.fingerprint(connection, after=True) if difference and not rewritten else None,
        warning="\n".join(filter(None, (loaded.warning, rewritten))),
    )


def _apply(connection: Connection, load: Load, difference: Difference, rows_staged: int, accepted: Accepted) -> Loaded:
    """Delete and insert the rows that differ."""
    warning = check_size(load, difference.rows_before, rows_staged, accepted)
    with recording(connection, load, difference.gone, difference.came) as kept:
        deleted, inserted = difference.apply(connection, kept)
    if deleted != difference.gone:
        raise LoadError(_held_back(load))
    rows = difference.rows_before - deleted + inserted
    return Loaded(rows, difference.rows_before, deleted, inserted, difference, warning=warning)


def _replace(
    connection: Connection, load: Load, names: sql.Composable, staging: Staging, rows_staged: int, accepted: Accepted
) -> Loaded:
    """Delete all rows, and insert the staged ones."""
    target = sql.Identifier(load.schema, load.name)
    rows_before = execute(connection, sql.SQL("DELETE FROM {}").format(target))
    if _holds_rows_back(connection, load):
        raise LoadError(_held_back(load))
    warning = check_size(load, rows_before, rows_staged, accepted)
    insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, names, names, staging.identifier)
    with recording(connection, load, rows_before, rows_staged, is_kept=False):
        rows = execute(connection, insert)
    return Loaded(rows, rows_before, rows_before, rows, warning=warning)


def _held_back(load: Load) -> str:
    return f"{load.table}: a trigger or rule prevents DELETE of its rows: drop it, or load another table"


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
    """A warning if triggers or rules changed rows, so that bronze is not as received. Most tables have none."""
    target = sql.Identifier(load.schema, load.name)
    drops = query(connection, DROP_CODE, {"table": target.as_string(connection)})
    if not drops:
        return ""
    ((rows,),) = query(
        connection,
        sql.SQL("SELECT count(*) FROM (SELECT {} FROM {} EXCEPT ALL SELECT {} FROM {}) AS missing").format(
            names, staging.identifier, names, target
        ),
    )
    if not rows:
        return ""
    drop = " ".join(statement for (statement,) in drops)
    return f"{load.table}: triggers change {rows:,} rows, so they are not as received. To load them as is: {drop}"


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
