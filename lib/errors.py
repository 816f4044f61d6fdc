"""Every error that the pipeline raises on purpose. Its text is printed to the user and lands in cron's mail.

A message says what failed, on what (job, table, file:line) and what to do next. It never holds a secret.
Exit codes (README, "Run daily"): 1 a job failed; 2 registry, settings, secrets or usage; 75 (EX_TEMPFAIL) another
run is active.
"""

from __future__ import annotations

import errno


class EltError(Exception):
    """Base class: an expected failure, with a message for the user and an exit code."""

    exit_code = 1


class SettingsError(EltError):
    """elt_settings.toml, the environment or the command line holds an invalid value."""

    exit_code = 2


class JobConfigError(EltError):
    """The registry, or a script that it names, is wrong. The message lists every mistake, one per line."""

    exit_code = 2


class CredentialError(EltError):
    """A secret is missing, unreadable or refused."""

    exit_code = 2


class ExtractError(EltError):
    """The source did not deliver a table."""


class OutOfTime(ExtractError):
    """The time that a run may take for its exports is over."""


class LoadError(EltError):
    """Rows could not be staged, or a guard refused to load them into their table."""


class DatabaseError(EltError):
    """PostgreSQL cannot be reached, closed the connection, or denies a right that a run needs."""


class ScriptError(EltError):
    """A SQL script failed. The message begins with file:line."""


class CheckFailed(EltError):
    """A check returned rows: the data that was about to be published breaks its rule."""


class BusyError(EltError):
    """Another run holds the lock."""

    exit_code = 75


class Cancelled(EltError):
    """The run was stopped by a signal: 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, signal_number: int = 2) -> None:
        super().__init__(f"stopped by {({1: 'SIGHUP', 15: 'SIGTERM'}).get(signal_number, 'Ctrl-C')}")
        self.exit_code = 128 + signal_number


class LockTimeout(DatabaseError):
    """Another session held a lock for too long, or PostgreSQL cancelled us to end a deadlock. A retry may succeed."""


class ConnectionLost(DatabaseError):
    """The server or the network failed. The connection can no longer be used."""


class TooManyConnections(DatabaseError):
    """PostgreSQL has no slot for another connection. With the connections that there are, work can go on."""


class CommitInDoubt(ConnectionLost):
    """The connection was lost after COMMIT was sent, before the answer arrived. The commit may have succeeded."""


class LimitReached(EltError):
    """The system gives this process no further thread or file handle."""


def limit_reached(error: BaseException) -> LimitReached | None:
    """The error as LimitReached if that is what it means."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return LimitReached(
            "this process can open no further file or connection: raise the limit (`ulimit -n` shows it), or lower"
            " [run] parallel in elt_settings.toml"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return LimitReached(
            "this process can start no further thread: raise the limit (`ulimit -u`, or the container's), or lower"
            " [run] parallel in elt_settings.toml"
        )
    return None
