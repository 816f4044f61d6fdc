"""Reads what a run changed, for people and programs: the counts of each table, and its first rows before and after.

lib/elt_schema/row_changes.sql records it. A role sees the rows of tables that it may read; it needs no rights but those
in docs/operations.md, "What a run changed".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from lib.config.spelling import did_you_mean
from lib.postgres.connection import Connection, query


@dataclass(frozen=True)
class RowChange:
    """One changed row. Values are as in JSON, but a number with a decimal point is a Decimal."""

    #: inserted, updated or deleted
    operation: str
    #: columns of the primary key, in its order; None: a bronze row
    key: Mapping[str, object] | None
    #: the row before and after, in the table's order of columns; None: inserted, or deleted
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None


@dataclass(frozen=True)
class TableChanges:
    """What a run changed in one table, as in elt.changes, and the first of these rows."""

    relation: str
    inserted: int
    updated: int
    deleted: int
    #: rows that statements changed which record nothing; `rows` lacks them
    by_other_statements: int
    #: whether the rows are still there; if not, only counts are known
    is_kept: bool
    #: whether the table was empty before
    first_filling: bool
    #: gold views that read the table, directly or through other views
    views: tuple[str, ...]
    rows: tuple[RowChange, ...] = ()
    #: whether this role may see the rows: it may read the table, which was not made anew since
    may_read: bool = True

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class ChangingRun:
    """A run of the history."""

    run_id: int
    status: str
    #: the day that it loaded
    run_date: date
    started_at: datetime
    #: the run that it took back, if it is an undo
    undone_run_id: int | None = None


#: runs that may have changed something, the newest first; to_jsonb, because an older warehouse lacks the column
RUNS = """
    SELECT
        run_id, recent.status, run_date, recent.started_at, (to_jsonb(runs) ->> 'undone_run_id')::bigint
    FROM elt.recent_runs AS recent
    JOIN elt.runs USING (run_id)
    WHERE {}
    ORDER BY run_id DESC
"""


def last_published(connection: Connection) -> ChangingRun | None:
    """The last run that published a job, or took a run back; None if there is none."""
    wanted = "jobs_published > 0 OR to_jsonb(runs) ->> 'undone_run_id' IS NOT NULL"
    found = query(connection, f"{RUNS.format(wanted)} LIMIT 1")
    return ChangingRun(*found[0]) if found else None


def one_run(connection: Connection, run_id: int) -> ChangingRun | None:
    """The run of this number; None if there is none."""
    found = query(connection, RUNS.format("run_id = %s"), (run_id,))
    return ChangingRun(*found[0]) if found else None


def runs_since(connection: Connection, day: date) -> list[ChangingRun]:
    """The runs that changed something, from the first whose day is this one or a later one; the newest first.

    Later runs that loaded an earlier day are among them.
    """
    wanted = (
        "run_id >= (SELECT min(run_id) FROM elt.runs WHERE run_date >= %s)"
        " AND run_id IN (SELECT run_id FROM elt.changes)"
    )
    return [ChangingRun(*row) for row in query(connection, RUNS.format(wanted), (day,))]


def plain(name: str) -> str:
    """A name as a person types it. PostgreSQL also quotes keywords, as in silver."user"."""
    return name.replace('"', "")


#: what `--table` may name
NAMES = """
    SELECT relation FROM elt.changes
    UNION
    SELECT format('%I.%I', nspname, relname)
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v') AND nspname IN ('bronze', 'silver', 'gold')
"""


def unknown_table(connection: Connection, name: str) -> str:
    """Why a name is no table or view of the layers, and was never changed by a run either; empty if it is or was."""
    known = [plain(each) for (each,) in query(connection, NAMES)]
    return "" if plain(name) in known else f"there is no table {name!r}{did_you_mean(name, known)}"


#: One row per table that the run changed. By name and not by to_regclass, which fails in a schema that we may not use.
TABLES = """
    WITH RECURSIVE changed AS (
        SELECT changes.*, pg_class.oid
        FROM elt.changes AS changes
        LEFT JOIN (pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace)
            ON format('%%I.%%I', nspname, relname) = relation
        WHERE run_id = %s
    ),

    readers (oid, reader) AS (
        SELECT oid, oid FROM changed WHERE oid IS NOT NULL
        UNION
        SELECT readers.oid, ev_class
        FROM readers
        JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = reader
        JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
    )

    SELECT
        relation, inserted, updated, deleted, by_other_statements, kept_as IS NOT NULL, first_filling,
        elt._may_see_changes(relation_oid, relation, key_columns),
        key_columns,
        ARRAY(
            SELECT format('%%I.%%I', nspname, relname)
            FROM readers
            JOIN pg_class ON pg_class.oid = reader
            JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE readers.oid = changed.oid AND nspname = 'gold'
            ORDER BY 1
        ),
        ARRAY(
            SELECT attname::text
            FROM pg_attribute
            WHERE attrelid = changed.oid AND attnum > 0 AND NOT attisdropped
            ORDER BY attnum
        )
    FROM changed
    ORDER BY relation
"""

#: rows of one table; bronze rows have no key, so any column may hold the value
ROWS = """
    FROM elt.row_changes
    WHERE run_id = %(run_id)s AND relation = %(relation)s AND (
        %(key)s::text IS NULL
        OR EXISTS (
            SELECT
            FROM (VALUES (key), (CASE WHEN key IS NULL THEN before END), (CASE WHEN key IS NULL THEN after END))
                AS searched (content)
            CROSS JOIN LATERAL jsonb_each_text(content) AS found
            WHERE found.value = %(key)s
        )
    )
"""
COUNTED = f"SELECT operation, count(*) {ROWS} GROUP BY operation"
#: the inner query decides which rows, so that only these become text
FIRST = f"""
    SELECT operation, key::text, before::text, after::text FROM (
        SELECT operation, key, before, after
        {ROWS}
        ORDER BY {{order}} operation, coalesce(after, before)
        LIMIT %(limit)s
    ) AS found
"""
#: each column is a parameter
ORDER = "coalesce(key, after, before) -> %({})s,"
#: Bronze rows are in the order of so many columns. Then the row that came in place of another often follows it.
ORDERED_BY = 3


def read_changes(
    connection: Connection, run_id: int, *, tables: Collection[str] = (), key: str | None = None, limit: int = 5
) -> list[TableChanges]:
    """What a run changed, by table in the order of their names. Empty: nothing, or there is no such run.

    Any transaction will do, also the run's own before its end.

    tables: only these; a gold view stands for the tables that it reads. Empty: all
    key: only rows with this value in a column of their key, or in any column of a bronze row. Then the counts are those
        of these rows, and a table without such a row is left out; one whose rows cannot be read keeps its counts
    limit: how many rows of each table
    """
    wanted = {*map(plain, tables)}
    found = []
    for row in query(connection, TABLES, (run_id,)):
        relation, inserted, updated, deleted, others, is_kept, is_first, may_read, key_columns, views, columns = row
        if wanted and wanted.isdisjoint(map(plain, (relation, *views))):
            continue
        table = TableChanges(
            relation, inserted, updated, deleted, others, is_kept, is_first, tuple(views), may_read=may_read
        )
        order = {f"order_{place}": name for place, name in enumerate(key_columns or columns[:ORDERED_BY])}
        asked = {"run_id": run_id, "relation": relation, "key": key, "limit": limit, **order}
        if is_kept and may_read:
            if key is not None:
                counts = dict(query(connection, COUNTED, asked))
                table = replace(table, **{each: counts.get(each, 0) for each in ("inserted", "updated", "deleted")})
                if not table.total:
                    continue
            if limit:
                first = FIRST.format(order=" ".join(map(ORDER.format, order)))
                rows = tuple(
                    RowChange(
                        operation, _parsed(its_key, key_columns or ()), *(_parsed(each, columns) for each in sides)
                    )
                    for operation, its_key, *sides in query(connection, first, asked)
                )
                table = replace(table, rows=rows)
        found.append(table)
    return found


def _parsed(text: str | None, columns: Iterable[str]) -> Mapping[str, object] | None:
    """A JSON object with its columns in this order. JSON itself has none."""
    if text is None:
        return None
    content: dict[str, Any] = json.loads(text, parse_float=Decimal, parse_int=_integer)
    return {column: content[column] for column in columns if column in content}


def _integer(digits: str) -> int | Decimal:
    """Python refuses to make an int of more than 4,300 digits; numeric has up to 131,072."""
    return int(digits) if len(digits) < 4_000 else Decimal(digits)
