"""Puts one table back as it was before a run, from the rows that elt.changes keeps (lib/elt_schema/row_changes.sql).

A table is only touched if it still holds what the run left. Rows with a key are found by it, and compared as they are
stored. Bronze rows have no key: of n equal rows as many go as came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg2
from psycopg2 import sql

from lib.load.difference import TREE
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import message_of

#: how many rows of a table a message names
SHOWN = 3
#: classes of SQLSTATE: the old rows do not fit the table (data exceptions, violated constraints, limits, generated
#: columns)
DOES_NOT_FIT = ("22", "23", "42", "54")

CHANGED = """
    SELECT relation, inserted, updated, deleted, by_other_statements, first_filling, key_columns, kept_as,
        filled_columns, filled_with
    FROM elt.changes WHERE run_id = %s ORDER BY relation
"""
COLUMNS = """
    SELECT attname, attgenerated <> '', attidentity = 'a'
    FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""
#: what could change other rows than those that are put back: triggers and rules of a table and its partitions, and
#: foreign keys of other tables
CODE = f"""
    {TREE}

    SELECT concat('trigger ', quote_ident(tgname))
    FROM pg_trigger JOIN tree ON tgrelid = tree.oid
    WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')
    UNION
    SELECT concat('rule ', quote_ident(rulename))
    FROM pg_rewrite JOIN tree ON ev_class = tree.oid
    WHERE ev_enabled IN ('O', 'A') AND ev_type <> '1'
    UNION
    SELECT concat('foreign key ', quote_ident(conname), ' of ', conrelid::regclass)
    FROM pg_constraint JOIN tree ON confrelid = tree.oid
    WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
    ORDER BY 1
"""

#: Rows with a key. k: one that is kept, t: one of the table. Those that are not as the side {here} has them: another
#: row or none, or one in place of none.
STRANGE = """
    SELECT {k_keys} AS content
    FROM (SELECT * FROM {kept} WHERE {side} = {here}) AS k LEFT JOIN {table} AS t ON {t_is_k}
    WHERE NOT ROW({t_columns})::record OPERATOR(pg_catalog.*=) ROW({k_columns})::record
    UNION ALL
    SELECT {k_keys}
    FROM (SELECT * FROM {kept} AS k WHERE k.{side} = {gone} AND NOT {k_is_here}) AS k JOIN {table} AS t ON {t_is_k}
"""
#: whether a kept row has another side, too
IS_ON = "EXISTS (SELECT FROM {kept} AS o WHERE o.{side} = {other} AND {o_is_k})"
#: in this order a unique value may move from one key to another
BY_KEY = (
    (
        "inserted",
        "DELETE FROM {table} AS t USING {kept} AS k WHERE k.{side} = 'after' AND {t_is_k} AND NOT {k_is_before}",
    ),
    ("updated", "UPDATE {table} AS t SET {assignments} FROM {kept} AS k WHERE k.{side} = 'before' AND {t_is_k}"),
    (
        "deleted",
        "INSERT INTO {table} ({written}) OVERRIDING SYSTEM VALUE"
        " SELECT {k_written} FROM {kept} AS k WHERE k.{side} = 'before' AND NOT {k_is_after}",
    ),
)

#: Rows without a key, with their places. A row without a place is not there. The text of a row, because not every type
#: has an order or a hash; the image, because texts may be equal where values differ.
LOCATE = """
    CREATE TEMP TABLE {located} ON COMMIT DROP AS
    SELECT part, place, left(k.content, 200) AS content
    FROM (
        SELECT content, image, row_number() OVER (PARTITION BY content) AS number
        FROM (
            SELECT ROW({k_columns})::text COLLATE "C" AS content, ROW({k_columns})::record AS image
            FROM {kept} AS k WHERE k.{side} = 'after'
        ) AS came
    ) AS k
    LEFT JOIN (
        SELECT part, place, content, image, row_number() OVER (PARTITION BY content ORDER BY part, place) AS number
        FROM (
            SELECT
                t.tableoid AS part,
                t.ctid AS place,
                ROW({t_columns})::text COLLATE "C" AS content,
                ROW({t_columns})::record AS image
            FROM {table} AS t
        ) AS found
        WHERE EXISTS (
            SELECT FROM {kept} AS k WHERE k.{side} = 'after' AND ROW({k_columns})::text COLLATE "C" = found.content
        )
    ) AS t ON t.content = k.content AND t.number = k.number AND t.image OPERATOR(pg_catalog.*=) k.image
"""
NOT_LOCATED = "SELECT content FROM {located} WHERE place IS NULL"
BY_PLACE = (
    ("inserted", "DELETE FROM {table} AS t USING {located} AS k WHERE t.ctid = k.place AND t.tableoid = k.part"),
    (
        "deleted",
        "INSERT INTO {table} ({written}) OVERRIDING SYSTEM VALUE"
        " SELECT {k_written} FROM {kept} AS k WHERE k.{side} = 'before'",
    ),
)
#: Not TRUNCATE, which makes readers wait.
EMPTY = (("inserted", "DELETE FROM {table}"),)


@dataclass(frozen=True)
class Changed:
    """What a run changed in one table: a row of elt.changes."""

    relation: str
    inserted: int
    updated: int
    deleted: int
    by_other_statements: int
    first_filling: bool
    key_columns: Sequence[str] | None
    kept_as: str | None
    filled_columns: Sequence[str] | None
    filled_with: str | None


class DoesNotFit(Exception):
    """The old rows cannot be written. The transaction must be rolled back."""


class Table:
    """A table that a run changed. The caller has locked it against writers, and holds the lock to the end."""

    def __init__(self, connection: Connection, run_id: int, changed: Changed, oid: int | None) -> None:
        """oid None: the table is gone."""
        self.changed = changed
        self._connection, self._run_id, self._oid = connection, run_id, oid
        self._kept = f"elt_changes.{changed.kept_as}" if changed.kept_as else None
        self._parts: dict[str, sql.Composable] = {}

    @property
    def name(self) -> str:
        return self.changed.relation

    @property
    def rows(self) -> int:
        """How many rows are put back."""
        return self.changed.inserted + self.changed.updated + self.changed.deleted

    # ---- why not ----------------------------------------------------------------------------------------------------

    def refusals(self) -> list[str]:
        """Why the table cannot be put back, a line for each reason. Empty: it can."""
        if self._oid is None:
            return [f"{self.name}: the table was dropped or renamed since"]
        reasons = [*self._code(), *self._others()] or [*self._not_kept()] or [*self._columns()]
        if not reasons and self.changed.first_filling:
            reasons = self._filling()
        elif not reasons:
            self._prepare()
            reasons = self._strange_rows("after", "before")
        return [f"{self.name}: {reason}" for reason in reasons]

    def _code(self) -> list[str]:
        return [
            f"{found} may change rows while others are put back; drop or disable it, or put the table back by hand"
            for (found,) in query(self._connection, CODE, {"table": self._oid})
        ]

    def _others(self) -> list[str]:
        rows = self.changed.by_other_statements
        return [
            f"a script changed {rows:,} of its rows with INSERT, UPDATE or DELETE, and such rows are not kept; to leave"
            f" the table as it is: --except {self.name}"
        ][: rows > 0]

    def _not_kept(self) -> list[str]:
        if self.changed.first_filling:
            known = self.changed.filled_with is not None
            return [] if known else ["the run filled it when it was empty, and did not record with which rows"]
        if self._kept and query(self._connection, "SELECT to_regclass(%s)::oid", (self._kept,)) != [(None,)]:
            return []
        return [
            f"the {self.rows:,} rows that were changed are not kept, or no longer (keep_changes in elt_settings.toml)"
        ]

    def _columns(self) -> list[str]:
        """Each column of then must be there with its type. One that came since keeps its values."""
        ((today, kept),) = query(
            self._connection, "SELECT elt._columns_of(%s), elt._columns_of(to_regclass(%s))", (self._oid, self._kept)
        )
        then = self.changed.filled_columns or kept[1:]  # the first one is the side
        types = dict(map(_name_and_type, today))
        lost = [name for name, kind in map(_name_and_type, then) if types.get(name) != kind]
        reasons = [
            f"column {name!r} {'has another type or collation than then' if name in types else 'is gone'},"
            " so the old rows do not fit"
            for name in lost
        ]
        if self.changed.key_columns and set(self.changed.key_columns) != {name for name, _ in self._key()}:
            reasons.append(f"its primary key was {', '.join(self.changed.key_columns)}, and is another one now")
        return reasons

    def _filling(self) -> list[str]:
        ((found,),) = query(
            self._connection, "SELECT elt._filled_with(%s, %s)", (self._oid, self.changed.filled_columns)
        )
        if found == self.changed.filled_with:
            return []
        filled, here = (int(text.split()[0]) for text in (self.changed.filled_with or "0", found))
        return [
            f"it was empty before, and run {self._run_id} filled it with {filled:,} rows; now it holds"
            f" {f'{here:,} rows' if here != filled else 'others'}, so somebody changed rows since"
        ]

    def _strange_rows(self, here: str, gone: str) -> list[str]:
        """A reason if rows are not as one side of what is kept has them."""
        if self.changed.key_columns:
            strange = self._statement(
                STRANGE, here=sql.Literal(here), gone=sql.Literal(gone), k_is_here=self._is_on(here)
            )
        else:
            strange = self._statement(NOT_LOCATED)
        ((rows, shown),) = query(
            self._connection,
            sql.SQL("SELECT count(*), (array_agg(content ORDER BY content))[:{}] FROM ({}) AS strange").format(
                sql.Literal(SHOWN), strange
            ),
        )
        if not rows:
            return []
        more = f" and {rows - SHOWN:,} more" if rows > SHOWN else ""
        return [
            f"somebody changed rows since run {self._run_id}: {'; '.join(shown)}{more}; to leave the table as it is:"
            f" --except {self.name}"
        ]

    # ---- putting back -----------------------------------------------------------------------------------------------

    def put_back(self) -> None:
        """Put the rows back, and record that in elt.changes as a change of the undo. Call `refusals` before.

        Raises DoesNotFit with the reason if that is not possible.
        """
        changed, connection = self.changed, self._connection
        is_kept = not changed.first_filling
        if not is_kept:  # later calls of the run may have changed what the first one inserted
            held = int((changed.filled_with or "0").split()[0])
            self.changed = changed = replace(changed, inserted=held, updated=0, deleted=0)
        steps = BY_KEY if changed.key_columns else BY_PLACE if is_kept else EMPTY
        ((into,),) = query(
            connection,
            "SELECT elt._begin_changes(%s, %s, %s, false, %s)",
            (self._oid, changed.key_columns, self.rows, is_kept),
        )
        if into:  # what the run had inserted is deleted now
            self._keep(into, "before", "after")
            self._keep(into, "after", "before")
        try:
            for counted, step in steps:
                expected = getattr(changed, counted)
                touched = execute(connection, self._statement(step)) if expected else 0
                if touched != expected:
                    raise DoesNotFit(f"{self.name}: {touched:,} rows were put back instead of {expected:,}")
        except psycopg2.Error as error:
            if (error.pgcode or "")[:2] not in DOES_NOT_FIT:
                raise
            raise DoesNotFit(f"{self.name}: the old rows do not fit: {message_of(error)}") from error
        if changed.key_columns and (wrong := self._strange_rows("before", "after")):
            raise DoesNotFit(f"{self.name}: PostgreSQL did not write the old rows as they were: {wrong[0]}")
        execute(
            connection,
            "SELECT elt._end_changes(%s, %s, %s, %s, %s)",
            (self._oid, into, changed.deleted, changed.updated, changed.inserted),
        )

    def _keep(self, into: str, side: str, of_side: str) -> None:
        rows = self._statement("SELECT {k_columns} FROM {kept} AS k WHERE k.{side} = {of}", of=sql.Literal(of_side))
        columns = self._parts["columns"].as_string(self._connection)
        execute(
            self._connection,
            "SELECT elt._keep_rows(%s, %s, %s, %s, %s)",
            (self._oid, into, side, columns, rows.as_string(self._connection)),
        )

    # ---- statements -------------------------------------------------------------------------------------------------

    def _key(self) -> list[tuple[str, str]]:
        """Each column of the primary key now, with its operator "equals"."""
        return query(
            self._connection,
            "SELECT name, key_operator FROM elt._publish_columns(%(table)s, %(table)s)"
            " WHERE key_place > 0 ORDER BY key_place",
            {"table": self._oid},
        )

    def _prepare(self) -> None:
        """The parts of the statements. Without a key, look for the rows, too."""
        connection = self._connection
        side, *names = [
            name
            for (name,) in query(
                connection,
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
                (self._kept,),
            )
        ]
        today = {name: (generated, always) for name, generated, always in query(connection, COLUMNS, (self._oid,))}
        written = [name for name in names if not today[name][0]]
        settable = [name for name in written if not today[name][1]]
        self._parts = {
            "table": sql.SQL(self.name),
            "kept": sql.SQL(self._kept or ""),
            "side": sql.Identifier(side),
            "located": sql.Identifier("pg_temp", f"elt_located_{self._oid}"),
            "columns": _listed(names),
            "k_columns": _listed(names, "k"),
            "t_columns": _listed(names, "t"),
            "written": _listed(written),
            "k_written": _listed(written, "k"),
            "assignments": sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("k", name)) for name in settable
            ),
        }
        if self.changed.key_columns:
            key = self._key()
            self._parts |= {
                "k_keys": sql.SQL("concat_ws(', ', {})").format(
                    sql.SQL(", ").join(
                        sql.SQL("concat({}, ' ', {}::text)").format(sql.Literal(name), sql.Identifier("k", name))
                        for name, _ in key
                    )
                ),
                "t_is_k": _same_key(key, "t"),
                "o_is_k": _same_key(key, "o"),
            }
            self._parts |= {"k_is_before": self._is_on("before"), "k_is_after": self._is_on("after")}
        else:
            execute(connection, self._statement(LOCATE))

    def _is_on(self, side: str) -> sql.Composed:
        return self._statement(IS_ON, other=sql.Literal(side))

    def _statement(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**{"table": sql.SQL(self.name)} | self._parts | more)


def _name_and_type(described: str) -> tuple[str, str]:
    """An entry of elt._columns_of as the column's name, and its type, modifier and collation."""
    name, *kind = described.rsplit(" ", 3)
    return name, " ".join(kind)


def _listed(names: Sequence[str], alias: str = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*filter(None, (alias, name))) for name in names)


def _same_key(key: Sequence[tuple[str, str]], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(sql.Identifier(alias, name), sql.SQL(operator), sql.Identifier("k", name))
        for name, operator in key
    )
