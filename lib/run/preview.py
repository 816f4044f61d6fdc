"""What a preview finds out: the changes in bronze, silver and gold, columns, and the definitions that would be applied.

A preview is a run whose publish transaction is rolled back (`runner`, `publisher`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lib.config.jobs import Script
from lib.errors import ScriptError
from lib.postgres.connection import Connection, execute, query
from lib.run import private_gold
from lib.run.definitions import not_applied
from lib.run.history import WRITING
from lib.run.read_changes import TableChanges, read_changes
from lib.run.reader_waits import ReaderWait
from lib.run.view_rows import ViewChanges, ViewRows

#: name and type of each column of the layers
COLUMNS = """
    SELECT format('%I.%I', nspname, relname), attname, format_type(atttypid, atttypmod)
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname IN ('bronze', 'silver', 'gold') AND relkind IN ('r', 'p', 'v', 'm', 'f')
        AND attnum > 0 AND NOT attisdropped
    ORDER BY nspname, relname, attnum
"""
#: other sessions that use a relation now; a plain role sees of another one no more than this
USERS = """
    SELECT DISTINCT format('%%s (backend %%s)', usename, pid)
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE relation = %s AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1
"""


@dataclass(frozen=True)
class ColumnChange:
    """A column that would come, go, or have another type. None: not there."""

    relation: str
    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class AppliedDefinition:
    """A bronze or gold script that a run would apply."""

    script: str
    relation: str
    #: whether it is there already and is a view: then its readers wait until the run ends
    locks_readers: bool
    #: sessions that use it now
    users: tuple[str, ...] = ()


@dataclass
class Preview:
    """What a preview compares, and what it found; empty until `end`."""

    #: whether gold views of very many rows are compared, too
    compare_all: bool = False
    #: rows of each table that are read
    limit: int = 5
    tables: list[TableChanges] = field(default_factory=list)
    views: list[ViewChanges] = field(default_factory=list)
    columns: list[ColumnChange] = field(default_factory=list)
    definitions: list[AppliedDefinition] = field(default_factory=list)
    _pending: frozenset[str] = frozenset()

    def begin(self, connection: Connection, run_id: int, on_view: Callable[[str], None]) -> None:
        """Call it in the transaction before it changes anything."""
        # so that gold views which read the history say what they will say after a run
        execute(connection, WRITING + "UPDATE elt.runs SET kind = 'run' WHERE run_id = %s", (run_id,))
        self._rows = ViewRows(connection, run_id, self.compare_all, on_view)
        self._rows.remember()
        self._columns_before = _columns(connection)
        self._views_before = dict(
            query(
                connection,
                "SELECT 'gold.' || relname, oid FROM pg_class"
                " WHERE relnamespace = 'gold'::regnamespace AND relkind = 'v'",
            )
        )

    def gold_to_apply(
        self, connection: Connection, scripts: Sequence[Script], gold: Mapping[str, Script]
    ) -> list[Script]:
        """Of these gold scripts those that a run would apply. If there are any, the transaction gets its own gold.

        gold: all gold scripts, by the view that they make.
        """
        pending = not_applied(connection, scripts)
        if private_gold.is_private(connection):
            return [script for script in pending if script.path in self._pending]
        if pending:
            # asked now, because PostgreSQL may print the query of a copied view otherwise
            self._pending = frozenset(script.path for script in not_applied(connection, list(gold.values())))
            private_gold.make_private(connection, gold)
        return pending

    def end(self, connection: Connection, run_id: int, applied: Iterable[Script]) -> None:
        """Find out what the transaction changed. Call it last, before the rollback. applied: definitions."""
        self.tables = read_changes(connection, run_id, limit=self.limit)
        self.views = self._rows.compare()
        after = _columns(connection)
        self.columns = [
            ColumnChange(*place, self._columns_before.get(place), after.get(place))
            for place in {**self._columns_before, **after}
            if self._columns_before.get(place) != after.get(place)
        ]
        self.definitions = [
            AppliedDefinition(
                script.path,
                script.relation,
                (oid := self._views_before.get(script.relation)) is not None,
                tuple(user for (user,) in query(connection, USERS, (oid,))),
            )
            for script in applied
        ]


def refuse_waits(script: str, waits: Sequence[ReaderWait]) -> None:
    """Raises ScriptError if a script of a preview locked readers of a table out: they must not notice a preview."""
    if waits:
        raise ScriptError(
            f"{script}: it changes {', '.join(wait.relation for wait in waits)} in a way that locks readers out until the"
            " end, so it cannot be previewed. A run does it."
        )


def _columns(connection: Connection) -> dict[tuple[str, str], str]:
    return {(relation, column): kind for relation, column, kind in query(connection, COLUMNS)}
