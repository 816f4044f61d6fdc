"""What a preview finds out: the changes in bronze, silver and gold, columns, and the definitions that would be applied.

A preview is a run whose publish transaction is rolled back (`runner`, `publisher`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lib.config.jobs import LAYERS, Script
from lib.elt_schema.strangers import Name
from lib.errors import EltError, ScriptError
from lib.postgres.connection import Connection, execute, query
from lib.run.definitions import not_applied
from lib.run.history import WRITING
from lib.run.private_schemas import is_private, make_private
from lib.run.read_changes import TableChanges, read_changes
from lib.run.reader_waits import ReaderWait
from lib.run.view_rows import ViewChanges, ViewRows
from lib.transform.statements import statements

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


#: SQLSTATE with which elt.add_column refuses in a preview to lock readers of a table out
LOCKS_READERS = "EL001"
#: each is made private together with those after it, whose views read it
SCHEMAS = LAYERS
#: begins a statement that locks readers of a table out
ALTER = ("alter", "table")


class WouldLockReaders(ScriptError):
    """A script of a preview locked readers of a table out."""


@dataclass(frozen=True)
class ColumnChange:
    """A column, of a relation that is there before and after, that would come, go, or have another type."""

    relation: str
    column: str
    #: type; None: it is not there
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
    #: whose tables the transaction changes in a private copy, because it would lock their readers out
    _copied: tuple[str, ...] = ()

    def begin(
        self,
        connection: Connection,
        run_id: int,
        named: Collection[Name],
        silver: Iterable[Script],
        gold: Mapping[str, Script],
        on_view: Callable[[str], None],
    ) -> None:
        """Call it in the transaction before it changes anything.

        named: what the scripts name. silver: all silver scripts. gold: all gold scripts, by the view that they make.
        """
        # so that gold views which read the history say what they will say after a run
        execute(connection, WRITING + "UPDATE elt.runs SET kind = 'run' WHERE run_id = %s", (run_id,))
        self._rows = ViewRows(connection, run_id, self.compare_all, on_view, self.limit)
        self._rows.remember()
        self._columns_before = _columns(connection)
        self._views_before = dict(
            query(
                connection,
                "SELECT 'gold.' || relname, oid FROM pg_class"
                " WHERE relnamespace = 'gold'::regnamespace AND relkind = 'v'",
            )
        )
        self._gold = gold
        # asked now, because PostgreSQL may print the query of a copied view otherwise
        self._pending = frozenset(script.path for script in not_applied(connection, list(gold.values())))
        # seen only after the script, it would have locked readers out for as long as the script takes
        parts = (part.words for script in silver for part in statements(script.text))
        if not self._copied and any(words[:2] == ALTER and "pg_temp" not in words for words in parts):
            self._copied = SCHEMAS[1:]
        if self._copied:
            make_private(connection, self._copied, copied=named, scripted=gold)

    def gold_to_apply(self, connection: Connection, scripts: Sequence[Script]) -> list[Script]:
        """Of these gold scripts those that a run would apply. If there are any, the transaction gets its own gold."""
        pending = not_applied(connection, scripts)
        if is_private(connection, "gold"):
            return [script for script in pending if script.path in self._pending]
        if pending:
            make_private(connection, ["gold"], scripted=self._gold)
        return pending

    def needs_copies(self, error: EltError) -> bool:
        """Whether a script failed because it would lock readers of a table out, which a preview does not.

        Then roll back and begin again: its changes are made in a copy of the table.
        """
        cause: BaseException | None = error
        while cause and not isinstance(cause, WouldLockReaders) and getattr(cause, "pgcode", "") != LOCKS_READERS:
            cause = cause.__cause__
        if cause is None or self._copied == SCHEMAS:
            return False
        self._copied = SCHEMAS if self._copied or str(error).startswith("bronze/") else SCHEMAS[1:]
        return True

    def end(self, connection: Connection, run_id: int, applied: Iterable[Script]) -> None:
        """Find out what the transaction changed. Call it last, before the rollback. applied: definitions."""
        self.tables = read_changes(connection, run_id, limit=self.limit)
        self.views = self._rows.compare()
        after = _columns(connection)
        relations = {relation for relation, _ in self._columns_before} & {relation for relation, _ in after}
        self.columns = [
            ColumnChange(*place, self._columns_before.get(place), after.get(place))
            for place in {**self._columns_before, **after}
            if place[0] in relations and self._columns_before.get(place) != after.get(place)
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
    """Raises WouldLockReaders if a script of a preview locked readers of a table out: they must not notice it."""
    if waits:
        raise WouldLockReaders(f"{script}: it locks readers of {', '.join(wait.relation for wait in waits)} out")


def _columns(connection: Connection) -> dict[tuple[str, str], str]:
    return {(relation, column): kind for relation, column, kind in query(connection, COLUMNS)}
