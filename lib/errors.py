"""Every error the pipeline raises on purpose; its text is what the reader of cron's mail sees.

A message says what failed, on what (job, table, file:line) and what to do next. It never holds a secret.
The exit codes are those of README, "Run daily": 1 a job failed, 2 registry, settings or usage, 75 (EX_TEMPFAIL) busy.
"""

from __future__ import annotations


class EltError(Exception):
    """Something failed in a way that the pipeline understands."""

    exit_code = 1


class SettingsError(EltError):
    """elt_settings.toml, the environment or the command line says something that cannot be meant."""

    exit_code = 2


class JobConfigError(EltError):
    """The registry or a script that it names is wrong. The message lists every mistake, one a line."""

    exit_code = 2


class CredentialError(EltError):
    """A secret is missing, unreadable or refused."""

    exit_code = 2


class ExtractError(EltError):
    """The source did not deliver a table."""


class LoadError(EltError):
    """Rows could not be staged or do not belong into their table."""


class DatabaseError(EltError):
    """PostgreSQL cannot be reached, went away or does not allow what a run needs."""


class ScriptError(EltError):
    """A SQL script failed; the message begins with file:line."""


class CheckFailed(EltError):
    """A check returned rows, so what was about to be published breaks a claim."""


class BusyError(EltError):
    """Another run holds the lock."""

    exit_code = 75


class Cancelled(EltError):
    """The run was stopped by a signal: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, signal_number: int = 2) -> None:
        super().__init__("stopped by SIGTERM" if signal_number == 15 else "stopped by Ctrl-C")
        self.exit_code = 128 + signal_number


# HEAD


class LockTimeout(DatabaseError):
    """Somebody held a lock for too long, or a deadlock was resolved against us: trying again may succeed."""


class ConnectionLost(DatabaseError):
    """The server or the network went away: nothing more can be done on this connection."""


class CommitInDoubt(ConnectionLost):
    """The connection was lost after COMMIT was sent and before its answer came."""
