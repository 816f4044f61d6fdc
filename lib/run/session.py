"""What every step of a run needs, once the run lock is taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from lib.elt_schema.strangers import ScriptPath
from lib.postgres.connection import Connection
from lib.postgres.transaction import TransactionSettings


@dataclass(frozen=True)
class LockRetry:
    """How a publish waits for locks. All times are in seconds."""

    lock_timeout: float = 5.0
    #: of the whole publish
    tries: int = 5
    pause: float = 15.0
    #: A definition locks readers out. While it waits for a reader, later readers wait behind it. So it waits only
    #: briefly, and again after a pause in which they go on.
    definition_timeout: float = 0.2
    definition_pause: float = 0.5
    definition_seconds: float = 60.0

    @property
    def pauses(self) -> list[float]:
        """Seconds before each retry."""
        return [self.pause] * (self.tries - 1)


@dataclass(frozen=True)
class Session:
    """One run on the database."""

    run_id: int
    #: holds the run lock and publishes
    connection: Connection
    #: records failures, and asks which sessions block the other connection
    recorder: Connection
    #: the search_path of scripts
    path: ScriptPath
    run_date: date
    #: whether changed rows are kept, and not only counted
    keep_changes: bool = False
    #: whether all of it will be rolled back
    is_preview: bool = False

    def transaction_settings(self, lock_timeout: float) -> TransactionSettings:
        """The settings of this run's transactions. lock_timeout is in seconds."""
        return TransactionSettings(
            lock_timeout, self.run_date, self.path.path, self.run_id, self.keep_changes, self.is_preview
        )
