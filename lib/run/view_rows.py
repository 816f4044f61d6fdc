"""Compares the rows that gold views have before and after a transaction's changes.

What a view holds at first is copied into unlogged tables of the same transaction. At its end both are compared as
multisets: GROUP BY of all columns with a sum of +1 and -1, which spills to disk, so memory stays small. EXCEPT ALL
keeps all rows in memory (tried on PostgreSQL 18), and a join loses duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

import psycopg2
from psycopg2 import sql

from lib.errors import ConnectionLost, LockTimeout
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import message_of, translate
from lib.run.read_changes import RowChange, TableChanges

#: a view that PostgreSQL expects to have more rows is compared on wish only
MANY_ROWS = 2_000_000
#: types whose = tells apart what is printed differently; other columns are compared as text
EXACT = ("smallint", "integer", "bigint", "boolean", "date", "uuid")
#: types of which a value is a number for whoever prints it
NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
#: up to so many columns at the beginning of a view are tried as a key of the rows that differ
KEY_COLUMNS = 3

VIEWS = """
    SELECT pg_class.oid, format('%I.%I', nspname, relname)
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'gold' AND relkind = 'v'
    ORDER BY relname
"""
COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod)
    FROM pg_attribute
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""


@dataclass(frozen=True)
class ViewChanges:
    """What would change in one gold view."""

    relation: str
    #: rows that would go and come; None: not compared
    changes: TableChanges | None = None
    #: why it was not compared
    why: str = ""
    #: whether the view is there only after, or only before
    is_new: bool = False
    is_gone: bool = False


@dataclass
class _Version:
    """A view as it was found at one moment."""

    #: type by column
    columns: dict[str, str]
    why: str = ""
    #: table in elt_staging that has its rows, under the names c0, c1, ..
    copy: str = ""


@dataclass
class ViewRows:
    """The gold views of the transaction that is open on this connection."""

    connection: Connection
    run_id: int
    #: whether views of very many rows are compared, too
    compare_all: bool
    #: called with the name of each view before it is read; may raise to stop
    on_view: Callable[[str], None]
    #: rows of each view that are read
    limit: int
    _before: dict[str, _Version] = field(default_factory=dict)

    def remember(self) -> None:
        """Copy what the views hold now. Call it before the transaction changes anything."""
        for number, (relation, version) in enumerate(self._versions()):
            self._before[relation] = version
            if not version.why:
                version.copy = f"r{self.run_id}_gold_{number}"
                with self._attempt(version):
                    execute(
                        self.connection,
                        sql.SQL("CREATE UNLOGGED TABLE {} AS {}").format(
                            sql.Identifier("elt_staging", version.copy), _rows(relation, version.columns)
                        ),
                    )

    def compare(self) -> list[ViewChanges]:
        """What differs between then and now, by view; views without a difference are left out."""
        after = dict(self._versions())
        found = [self._compare(relation, after.get(relation)) for relation in sorted({**self._before, **after})]
        return [each for each in found if each.why or each.is_new or each.is_gone or each.changes]

    def _versions(self) -> Iterator[tuple[str, _Version]]:
        """Each view as it is now, and why it is not read if it has too many rows."""
        for oid, relation in query(self.connection, VIEWS):
            self.on_view(relation)
            version = _Version(dict(query(self.connection, COLUMNS, (oid,))))
            with self._attempt(version):
                ((plan,),) = query(self.connection, f"EXPLAIN (FORMAT JSON) SELECT * FROM {relation}")
                plan = json.loads(plan) if isinstance(plan, str) else plan
                rows = plan[0]["Plan"]["Plan Rows"]
                if rows > MANY_ROWS and not self.compare_all:
                    version.why = f"about {rows:,} rows; --all compares it"
            yield relation, version

    @contextmanager
    def _attempt(self, version: _Version) -> Iterator[None]:
        """An error of the view's own query is why it is not compared."""
        execute(self.connection, "SAVEPOINT elt_view")
        try:
            yield
        except psycopg2.Error as error:
            stops = isinstance(error, psycopg2.errors.QueryCanceled)
            if stops or isinstance(translate(error, ""), LockTimeout | ConnectionLost):
                raise
            execute(self.connection, "ROLLBACK TO SAVEPOINT elt_view")
            version.why = message_of(error)
        execute(self.connection, "RELEASE SAVEPOINT elt_view")

    def _compare(self, relation: str, after: _Version | None) -> ViewChanges:
        before = self._before.get(relation)
        is_new, is_gone = before is None, after is None
        why = (before and before.why) or (after and after.why) or ""
        columns = dict((after or before).columns)  # type: ignore[union-attr]  # one of them is there
        if before and after:
            columns = {name: kind for name, kind in columns.items() if before.columns.get(name) == kind}
            why = why or ("" if columns else "all its columns are others")
        changes = None
        if not why:
            self.on_view(relation)
            place = [*before.columns] if before else []
            parts = []
            if before:
                names = [sql.Identifier(f"c{place.index(name)}") for name in columns]
                copy = sql.Identifier("elt_staging", before.copy)
                parts.append(sql.SQL("SELECT {}, -1 FROM {}").format(sql.SQL(", ").join(names), copy))
            if after:
                parts.append(sql.SQL("SELECT *, 1 FROM ({}) AS now").format(_rows(relation, columns)))
            tried = after or before or _Version({})
            with self._attempt(tried):
                changes = self._difference(relation, columns, sql.SQL(" UNION ALL ").join(parts))
            why = tried.why
        return ViewChanges(relation, changes if changes and changes.total else None, why, is_new, is_gone)

    def _difference(self, relation: str, columns: dict[str, str], rows: sql.Composable) -> TableChanges:
        names = [f"c{number}" for number in range(len(columns))]
        listed = ", ".join(names)
        execute(
            self.connection,
            sql.SQL(
                f"CREATE TEMP TABLE _elt_views AS SELECT {listed}, sum(n) AS n FROM ({{}}) AS u ({listed}, n)"
                f" GROUP BY {listed} HAVING sum(n) <> 0"
            ).format(rows),
        )
        key = next((size for size in range(1, KEY_COLUMNS + 1) if self._is_key(names[:size])), 0)
        keys = ", ".join(names[:key])
        if key:
            came, both, went = query(
                self.connection,
                "SELECT count(*) FILTER (WHERE went IS NULL), count(*) FILTER (WHERE came AND went),"
                " count(*) FILTER (WHERE came IS NULL) FROM ("
                "SELECT bool_or(true) FILTER (WHERE n > 0) AS came, bool_or(true) FILTER (WHERE n < 0) AS went"
                f" FROM pg_temp._elt_views GROUP BY {keys}) AS found",
            )[0]
            same = " AND ".join(f"d.{name} IS NOT DISTINCT FROM k.{name}" for name in names[:key])
            source = (
                f"(SELECT {keys} FROM pg_temp._elt_views GROUP BY {keys} ORDER BY {keys} LIMIT %(limit)s) AS k"
                f" JOIN pg_temp._elt_views AS d ON {same}"
            )
        else:
            came, both, went = query(
                self.connection,
                "SELECT coalesce(sum(n) FILTER (WHERE n > 0), 0)::bigint, 0,"
                " coalesce(-sum(n) FILTER (WHERE n < 0), 0)::bigint FROM pg_temp._elt_views",
            )[0]
            source = " UNION ALL ".join(
                f"(SELECT * FROM pg_temp._elt_views WHERE n {sign} 0 ORDER BY {listed} LIMIT %(limit)s)"
                for sign in "<>"
            )
            source = f"({source}) AS d"
        texts = ", ".join(f"d.{name}::text" for name in names)
        order = ", ".join(f"d.{name}" for name in names[: key or len(names)])
        found = query(
            self.connection, f"SELECT d.n > 0, {texts} FROM {source} ORDER BY {order}, d.n", {"limit": self.limit}
        )
        execute(self.connection, "DROP TABLE pg_temp._elt_views")
        return TableChanges(relation, came, both, went, 0, True, False, (), tuple(_row_changes(found, columns, key)))

    def _is_key(self, names: Sequence[str]) -> bool:
        """Whether no two rows that go, and no two that come, agree in these columns."""
        listed = ", ".join(names)
        return not query(
            self.connection,
            f"SELECT FROM pg_temp._elt_views GROUP BY {listed}"
            " HAVING sum(greatest(n, 0)) > 1 OR sum(greatest(-n, 0)) > 1 LIMIT 1",
        )


def _rows(relation: str, columns: dict[str, str]) -> sql.Composable:
    """A query of a view's rows, with columns c0, c1, .. that are equal only if they are printed alike."""
    return sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(
                sql.SQL("{}" if kind in EXACT else '{}::text COLLATE "C"').format(sql.Identifier("v", name)),
                sql.Identifier(f"c{number}"),
            )
            for number, (name, kind) in enumerate(columns.items())
        ),
        sql.SQL(f"{relation} AS v"),
    )


def _row_changes(found: Sequence[Sequence[object]], columns: dict[str, str], key: int) -> Iterator[RowChange]:
    """The rows as changes. Those of one key, which follow each other, are one change."""
    names = [*columns]
    sides: dict[object, dict[bool, dict[str, object]]] = {}
    for number, (is_new, *texts) in enumerate(found):
        row = {name: _value(text, columns[name]) for name, text in zip(names, texts, strict=True)}
        sides.setdefault(tuple(texts[:key]) if key else number, {})[bool(is_new)] = row
    for side in list(sides.values()):
        before, after = side.get(False), side.get(True)
        row = after or before or {}
        yield RowChange(
            "updated" if before and after else "inserted" if after else "deleted",
            {name: row[name] for name in names[:key]} if key else None,
            before,
            after,
        )


def _value(text: object, kind: str) -> object:
    """A value as in JSON, from PostgreSQL's text."""
    if text is None or kind.partition("(")[0] not in (*NUMBERS, "boolean"):
        return text
    if kind == "boolean":
        return text == "true"
    number = Decimal(str(text))
    return number if number.is_finite() else text
