"""Finds out which published relations a transaction locks so that nobody can read them, and which script did it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lib.postgres.connection import Connection, query


@dataclass(frozen=True)
class ReaderWait:
    """`script` locked `relation` for `seconds`, so that readers had to wait."""

    relation: str
    script: str
    seconds: float


class LockWatch:
    """Watches the locks of the transaction that is open on this connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # relations that existed before the transaction; nobody waits for those that it makes itself
        self._published = [
            oid
            for (oid,) in query(
                connection,
                "SELECT oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = ANY (ARRAY["
                "to_regnamespace('bronze'), to_regnamespace('silver'), to_regnamespace('gold')]::oid[])",
            )
        ]
        #: relation -> the script that locked readers out, and when
        self._locked: dict[str, tuple[str, float]] = {}

    def look(self, script: str) -> None:
        """Call after each script: remembers the published relations that readers cannot read since it ran."""
        for relation in self._exclusively_locked():
            self._locked.setdefault(relation, (script, time.monotonic()))

    def forget_released(self) -> None:
        """Call after a rollback to a savepoint, which releases the locks that were taken since the savepoint."""
        held = self._exclusively_locked()
        self._locked = {relation: since for relation, since in self._locked.items() if relation in held}

    def waits(self) -> tuple[ReaderWait, ...]:
        """The waits up to now. Call it directly before the transaction ends."""
        now = time.monotonic()
        return tuple(ReaderWait(relation, script, now - since) for relation, (script, since) in self._locked.items())

    def _exclusively_locked(self) -> list[str]:
        rows = query(
            self._connection,
            "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND granted"
            " AND mode = 'AccessExclusiveLock' AND relation = ANY (%s::oid[])",
            (self._published,),
        )
        return [relation for (relation,) in rows]
