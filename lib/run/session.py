"""What every step of a run needs, once the run lock is taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from lib.elt_schema.strangers import ScriptPath
from lib.postgres.connection import Connection
from lib.postgres.transaction import TransactionSettings


@dataclass(frozen=True)
class LockRetry:
    """How a publish waits for locks: seconds per lock, number of tries, and seconds between two tries."""

    lock_timeout: float = 5.0
    tries: int = 5
    pause: float = 15.0

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

    def transaction_settings(self, lock_timeout: float) -> TransactionSettings:
        """The settings of this run's transactions. lock_timeout is in seconds."""
        return TransactionSettings(lock_timeout, self.run_date, self.path.path)
