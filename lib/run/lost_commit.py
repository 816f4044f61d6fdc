"""Finds out, on a new connection, whether a COMMIT succeeded whose answer was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lib.errors import Cancelled, DatabaseError, EltError
from lib.postgres.connection import Connection, Database, execute
from lib.postgres.driver_errors import translated
from lib.postgres.run_lock import lock_holder, run_name, try_run_lock
from lib.run import history

#: seconds before each retry to reach the database
RETRY_PAUSE = 1.0


@dataclass(frozen=True)
class Answer:
    """What the database says about the run."""

    committed: bool
    #: a connection that holds the run lock; None if another run has taken the lock meanwhile
    connection: Connection | None


def how_to_look(run_id: int) -> str:
    """The text of a message that says how the user can find out whether the run was published.

    It does not read elt.runs: there, a run is failed whether some of its jobs were published or none.
    """
    return (
        f"\n    To find out: SELECT job FROM elt.job_runs WHERE run_id = {run_id} AND status = 'published'; returns a"
        " row for each job that was published. No row: nothing was published, run again."
    )


def ask(
    database: Database,
    run_id: int,
    lost: int,
    seconds: float,
    pause: Callable[[float], None],
    clock: Callable[[], float],
    how: str = "",
) -> Answer:
    """Ask the database, and try again for at most `seconds`. `lost` is the backend pid of the lost connection.

    how: how the user can find out; by default `how_to_look`.

    Raises DatabaseError, with the query for the user, if there is no answer until then.
    """
    until = clock() + seconds
    while True:
        try:
            if answer := _look(database, run_id, lost):
                return answer
            why = f"backend {lost} is still at work"
        except Cancelled:
            raise
        except EltError as error:  # for example: not started yet, or a standby that is being promoted
            why = str(error).partition("\n")[0]
        if clock() >= until:
            raise DatabaseError(
                f"the connection was lost while PostgreSQL answered COMMIT, and for {seconds:.0f} s"
                f" it could not be asked ({why}): nobody knows whether this run was published."
                f"{how or how_to_look(run_id)}"
            )
        pause(RETRY_PAUSE)


def _look(database: Database, run_id: int, lost: int) -> Answer | None:
    """The answer, or None if the lost backend may still be committing."""
    connection = database.connect(run_name(datetime.now(UTC)))
    answer = None
    try:
        with translated("asking what became of COMMIT"):
            # our own commits must not wait for a synchronous standby: that it is down may be why the answer was lost
            execute(
                connection, "SET lock_timeout = '5s'; SET statement_timeout = '10s'; SET synchronous_commit = local"
            )
            ours = try_run_lock(connection)
            holder = None if ours else lock_holder(connection)
            # if another session holds the lock, the lost session has ended
            if ours or (holder is not None and holder[0] != lost):
                status = history.ended_as(connection, run_id)
                execute(connection, "SET statement_timeout = 0; RESET synchronous_commit")
                answer = Answer(status not in ("running", "lost"), connection if ours else None)
        return answer
    finally:
        if answer is None or answer.connection is None:
            connection.close()
