"""Compares staged rows with a bronze table, so that publishing deletes and inserts only the rows that differ.

Bronze has no key, so both sides are compared as multisets of whole rows: of n equal rows exactly k go or come. This
happens outside of the publish transaction, on two connections: each compares the rows of one half. A row's half is
decided by its content, so that equal rows are in the same half.

What was compared must still be in the table when it is published. `Difference.holds` finds out, under the lock of the
publish: the number of rows, the files of the table (VACUUM FULL gives every row a new place), and the oldest
transaction that could have written a row after the comparison began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from lib.config.jobs import Load
from lib.load.contract import Contract
from lib.load.staging_table import Staging, create_table
from lib.postgres.connection import Connection, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.transaction import transaction

#: each is compared by a connection of its own
HALVES = (0, 1)
#: A larger table of which more than half differs is replaced, because that is faster.
ALWAYS_BY_DIFFERENCE = 100_000
#: Our columns beside those of bronze. A source column cannot land under such a name, because of the space.
OURS = {"count": "elt count", "part": "elt part", "place": "elt place", "number": "elt number"}

#: Names of all text columns of bronze in a deterministic collation: others may have equal values that look different.
COMPARABLE = """
    SELECT attname
    FROM pg_attribute LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
        AND atttypid = 'text'::regtype AND collisdeterministic
"""

#: The column with the most different values, if the table has statistics.
BEST_SPREAD = """
    SELECT attname FROM pg_stats
    WHERE schemaname = %s AND tablename = %s AND attname = ANY (%s) AND NOT inherited
    ORDER BY CASE WHEN n_distinct < 0 THEN -n_distinct * 1e9 ELSE n_distinct END DESC, attname LIMIT 1
"""

#: Plans that suit large tables. PostgreSQL would not choose them, because our tables have no statistics. No parallel
#: workers: each half has a connection, and so a processor, of its own.
PLANS = """
    SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL enable_sort = off; SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off
"""

#: a table, given by name or oid, its partitions and its children
TREE = """
    WITH RECURSIVE tree (oid) AS (
        SELECT %(table)s::regclass::oid
        UNION
        SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid
    )
"""

#: The files and compared columns of a table, its partitions and its children. VACUUM FULL, CLUSTER and TRUNCATE make
#: new files. A column that is added with a default has values in rows that nobody wrote (atthasmissing).
SHAPE = f"""
    {TREE}
    SELECT string_agg(
        concat_ws(' ', oid, pg_relation_filenode(oid), (
            SELECT string_agg(concat_ws(' ', attnum, atttypid, attcollation, atthasmissing), ',' ORDER BY attnum)
            FROM pg_attribute
            WHERE attrelid = tree.oid AND attnum > 0 AND NOT attisdropped
                AND (atthasmissing OR attname = ANY (%(columns)s))
        )),
        '; ' ORDER BY oid
    )
    FROM tree
"""


#: $ stands for the contract's columns of a row, as a record. A sum of plain row hashes would not see values that
#: change places between rows, because the hash of a row is a sum, too.
ROW_HASHES = "coalesce(sum(hashtextextended(hash_record_extended($, 0)::text, 1)), 0)"
COUNT_ROWS = f"""
    SELECT count(*), {ROW_HASHES}, EXISTS (SELECT FROM {{table}}) FROM {{table}} AS b WHERE {{bronze_half}}
""".replace("$", "{bronze_row}")
COUNT_STAGED = f"""
    SELECT 0, count(*), {ROW_HASHES} FROM {{staging}} AS s WHERE {{staging_half}}
""".replace("$", "{staged_row}")
COMPARE = """
    INSERT INTO {differing} ({names}, {count})
    SELECT {names}, sum({count})
    FROM (
        SELECT {staged}, 1 FROM {staging} AS s WHERE {staging_half}
        UNION ALL
        SELECT {loaded}, -1 FROM {table} AS b WHERE {bronze_half}
    ) AS both_sides ({names}, {count})
    GROUP BY {names} HAVING sum({count}) <> 0
"""
#: Each row of the difference may stand for several rows of bronze; d.ctid tells the rows of the difference apart.
LOCATE = """
    INSERT INTO {gone} ({part}, {place}, {names})
    SELECT {part}, {place}, {names}
    FROM (
        SELECT
            b.tableoid AS {part}, b.ctid AS {place}, d.*,
            row_number() OVER (PARTITION BY d.ctid ORDER BY b.tableoid, b.ctid) AS {number}
        FROM {differing} AS d
        JOIN {table} AS b
            ON hash_record_extended({bronze_row}, 0) = hash_record_extended({row}, 0)
            AND {bronze_row} OPERATOR(pg_catalog.*=) {row}
        WHERE d.{count} < 0 AND {half} AND {bronze_half}
    ) AS located
    WHERE {number} <= -{count}
"""
COUNT_DIFFERENCE = """
    SELECT
        coalesce(sum(-d.{count}) FILTER (WHERE d.{count} < 0), 0)::bigint,
        coalesce(sum(d.{count}) FILTER (WHERE d.{count} > 0), 0)::bigint,
        coalesce(sum(d.{count}::numeric * hashtextextended(hash_record_extended({row}, 0)::text, 1)), 0)
    FROM {differing} AS d WHERE {half}
"""
COUNT_FOUND = """
    SELECT
        (SELECT count(*) FROM {gone}),
        (SELECT coalesce(sum(d.{count}), 0)::bigint FROM {differing} AS d WHERE d.{count} > 0)
"""
#: age() counts transactions, whatever their numbers are
COUNT_WRITTEN = """
    SELECT count(*), count(*) FILTER (WHERE age(b.xmin) <= age({writer}::text::xid8::xid)) FROM {table} AS b
"""
#: The place alone could be that of another row.
DELETE = """
    DELETE FROM {table} AS b USING {gone} AS d
    WHERE b.ctid = d.{place} AND b.tableoid = d.{part} AND {bronze_row} OPERATOR(pg_catalog.*=) {row}
"""
INSERT = "INSERT INTO {table} AS b ({names}) SELECT {names} FROM {differing} AS d, generate_series(1, d.{count})"


@dataclass(frozen=True)
class Half:
    """What one connection found. Rows are those of its half."""

    #: a transaction that wrote a row after the comparison began has this number or a higher one
    oldest_writer: int
    #: of the table
    shape: str
    #: of bronze
    rows: int
    #: how many rows of bronze must go, and how many staged ones must come
    gone: int
    came: int
    #: sums of ROW_HASHES: of the rows of bronze, and of the staged ones
    hashes_before: int
    hashes_after: int


@dataclass(frozen=True)
class Comparison:
    """What to compare: the staged rows of one job with its bronze table. Several connections may use it at once."""

    load: Load
    contract: Contract
    staging: Staging
    #: decides to which half a row belongs
    spread: str

    def compare(self, connection: Connection, half: int) -> Half:
        """Compare one half, in a transaction of its own. Raises DatabaseError."""
        try:
            with transaction(connection):
                execute(connection, PLANS)
                ((oldest_writer,),) = query(connection, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
                shape = self.shape(connection)
                ((rows, hashes, has_rows),) = query(connection, self.statement(COUNT_ROWS, half))
                if has_rows:
                    execute(connection, self.statement(COMPARE, half))
                    execute(connection, self.statement(LOCATE, half))
                ((gone, came, more_hashes),) = query(
                    connection, self.statement(COUNT_DIFFERENCE if has_rows else COUNT_STAGED, half)
                )
        except psycopg2.Error as error:
            raise translate(error, f"cannot compare {self.load.table} with its export") from error
        return Half(int(oldest_writer), shape, rows, gone, came, int(hashes), int(hashes + more_hashes))

    def shape(self, connection: Connection) -> str:
        """The files and columns of the table now."""
        columns = [column for column in self.contract.columns if column not in self.contract.not_yet_made]
        ((found,),) = query(connection, SHAPE, {"table": self._table.as_string(connection), "columns": columns})
        return str(found)

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(self.load.schema, self.load.name)

    def statement(self, text: str, half: int = 0, **more: sql.Composable) -> sql.Composed:
        """One of the statements above. b is a row of bronze, s a staged one, d one of the difference."""
        not_staged = {*self.contract.columns} - {*self.staging.columns}
        not_made = self.contract.not_yet_made if text in (COUNT_ROWS, COMPARE, LOCATE) else ()
        return sql.SQL(text).format(
            table=self._table,
            staging=self.staging.identifier,
            differing=sql.Identifier("elt_staging", differing_table(self.staging)),
            gone=sql.Identifier("elt_staging", gone_table(self.staging)),
            names=sql.SQL(", ").join(map(sql.Identifier, self.contract.columns)),
            **{name: sql.Identifier(column) for name, column in OURS.items()},
            staged=self._values("s", not_staged),
            staged_row=sql.SQL("ROW({})::record").format(self._values("s", not_staged)),
            loaded=self._values("b", not_made),
            bronze_row=sql.SQL("ROW({})::record").format(self._values("b", not_made)),
            row=sql.SQL("ROW({})::record").format(self._values("d")),
            bronze_half=self._in_half("b", half),
            staging_half=self._in_half("s", half),
            half=self._in_half("d", half),
            **more,
        )

    def _values(self, alias: str, missing: Collection[str] = ()) -> sql.Composable:
        return sql.SQL(", ").join(
            sql.SQL("NULL::text") if name in missing else sql.Identifier(alias, name) for name in self.contract.columns
        )

    def _in_half(self, alias: str, half: int) -> sql.Composable:
        # PostgreSQL takes a comparison with < for a third of the rows, and one with = for very few
        return sql.SQL("hashtextextended(coalesce({}, ''), 7) {} 0").format(
            sql.Identifier(alias, self.spread), sql.SQL(("<", ">=")[half])
        )


def prepare_comparison(connection: Connection, load: Load, contract: Contract, staging: Staging) -> Comparison | None:
    """Make the tables for a comparison. None: the table cannot be compared, so its load replaces every row.

    Equal values must look the same, so every column must be text in a deterministic collation.
    """
    columns = [column for column in contract.columns if column not in contract.not_yet_made]
    table = sql.Identifier(load.schema, load.name).as_string(connection)
    comparable = {name for (name,) in query(connection, COMPARABLE, (table,))}
    both = [column for column in columns if column in staging.columns]
    if not both or not comparable.issuperset(columns) or set(OURS.values()) & {*contract.columns}:
        return None
    best = query(connection, BEST_SPREAD, (load.schema, load.name, both))
    texts = [(column, "text") for column in contract.columns]
    create_table(connection, differing_table(staging), [*texts, (OURS["count"], "bigint")])
    create_table(connection, gone_table(staging), [(OURS["part"], "oid"), (OURS["place"], "tid"), *texts])
    return Comparison(load, contract, staging, best[0][0] if best else both[0])


def differing_table(staging: Staging) -> str:
    """Table in elt_staging: the rows that differ, and how many of each must come, or if negative, go."""
    return f"c{staging.name[1:]}"


def gone_table(staging: Staging) -> str:
    """Table in elt_staging: each row of bronze that must go, with the table and place where it was found."""
    return f"g{staging.name[1:]}"


@dataclass(frozen=True)
class Difference:
    """The result of a comparison."""

    comparison: Comparison
    halves: tuple[Half, ...]

    @property
    def rows_before(self) -> int:
        return sum(half.rows for half in self.halves)

    @property
    def gone(self) -> int:
        return sum(half.gone for half in self.halves)

    @property
    def came(self) -> int:
        return sum(half.came for half in self.halves)

    @property
    def is_worth_it(self) -> bool:
        """Whether writing the difference is faster than replacing every row."""
        return 0 < self.rows_before <= ALWAYS_BY_DIFFERENCE or 2 * self.gone < self.rows_before

    def fingerprint(self, connection: Connection, *, after: bool) -> str:
        """Tells whether the table holds the same rows as another time: before, or after the load.

        The hash of a row may differ between major versions of PostgreSQL.
        """
        rows = self.rows_before + (self.came - self.gone if after else 0)
        hashes = sum(half.hashes_after if after else half.hashes_before for half in self.halves)
        columns = hashlib.md5(repr(self.comparison.contract.columns).encode()).hexdigest()
        return f"{connection.server_version // 10000} {columns} {rows} {hashes}"

    def holds(self, connection: Connection) -> bool:
        """Whether the table still is what was compared. The caller's transaction has locked it against writers."""
        compared = self.comparison
        shape = compared.shape(connection)
        if any(half.shape != shape for half in self.halves):
            return False
        oldest = sql.Literal(str(min(half.oldest_writer for half in self.halves)))
        ((rows, written),) = query(connection, compared.statement(COUNT_WRITTEN, writer=oldest))
        # a server that crashed and started again has emptied these tables, which are unlogged
        ((gone, came),) = query(connection, compared.statement(COUNT_FOUND))
        return (rows, written, gone, came) == (self.rows_before, 0, self.gone, self.came)

    def apply(self, connection: Connection, kept: sql.Composable | None = None) -> tuple[int, int]:
        """Delete and insert what differs. Returns how many rows were deleted and inserted.

        kept: a table for these rows; in front of the columns of bronze it has 'before' or 'after'.
        """
        # With other joins switched off, PostgreSQL goes straight to the places.
        execute(connection, "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        deleted = self._change(connection, DELETE, "before", kept)
        execute(connection, "SET LOCAL enable_hashjoin = DEFAULT; SET LOCAL enable_mergejoin = DEFAULT")
        return deleted, self._change(connection, INSERT, "after", kept)

    def _change(self, connection: Connection, text: str, side: str, kept: sql.Composable | None) -> int:
        statement: sql.Composable = self.comparison.statement(text)
        if kept is not None:
            keep = "WITH changed AS ({} RETURNING b.*) INSERT INTO {} SELECT {}, changed.* FROM changed"
            statement = sql.SQL(keep).format(statement, kept, sql.Literal(side))
        return execute(connection, statement)


def was_edited(left: str | None, found: str | None) -> bool:
    """Whether somebody wrote to the table between two fingerprints. False if one is unknown, or of another server."""
    if left is None or found is None:
        return False
    return left.split()[:2] == found.split()[:2] and left != found
