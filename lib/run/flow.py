"""Waits, before a run begins, until the flow that fills the source tables has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo

import psycopg2

from lib.errors import ExtractError
from lib.extract import FlowJob
from lib.postgres.connection import Connection, query

#: seconds between two questions
ASK_EVERY = 20.0
#: seconds after which a line says again that the run waits
TELL_EVERY = 600.0
GOOD = ("success", "warning")
UNCHANGED = "Nothing was loaded; the rows loaded before stay."


def counting_from(connection: Connection, now: datetime) -> datetime:
    """From when on a job of the flow counts: if it started today, or after the last run began that published or
    found nothing new."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    # before the first run there is no schema elt; if it is damaged, the run that follows repairs it
    with suppress(psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
        ((last,),) = query(
            connection,
            "SELECT max(started_at) FROM elt.runs"
            " WHERE run_id IN (SELECT run_id FROM elt.job_runs WHERE status = 'published')"
            " OR to_jsonb(runs) ->> 'is_unchanged' = 'true'",  # an older version lacks the column
        )
        return min(today, last or today)
    return today


def in_words(flow: str, job: FlowJob, zone: tzinfo) -> str:
    """One line about a job of the flow."""
    started = f" (started {job.started.astimezone(zone):%Y-%m-%d %H:%M %Z})" if job.started else ""
    return f"flow {flow}, job {job.id}: {job.status}{started}" + (f": {job.message}" if job.message else "")


@dataclass(frozen=True)
class FlowWait:
    """How a run waits for a flow.

    newest: asks for the newest job that started at or after a time.
    command: how a run is typed without job names, for messages.
    """

    flow: str
    newest: Callable[[datetime | None], FlowJob | None]
    minutes: int
    zone: tzinfo
    command: str
    say: Callable[[str], None]
    pause: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic

    def wait(self, since: datetime) -> None:
        """Return once the newest job that started at or after `since` has ended well.

        Raises ExtractError if it ended otherwise, or if the time is up.
        """
        began = next_line = self.clock()
        seen = ""
        job = self.newest(since)
        while job is None or not job.has_ended:
            now = self.clock()
            left = self.minutes * 60 - (now - began)
            if left <= 0:
                raise ExtractError(self._given_up(job, since))
            job_id = job.id if job else ""
            if now >= next_line or job_id != seen:
                seen, next_line = job_id, now + TELL_EVERY
                self.say(f"waiting, minute {(now - began) / 60:.0f} of {self.minutes}: {self._state(job, since)}")
            self.pause(min(ASK_EVERY, left))
            job = self._ask_again(job, since)
        if job.status not in GOOD:
            raise ExtractError(
                f"{self._state(job, since)}\n    {UNCHANGED} Let the flow run again in Keboola, then run this again."
                f" {self._skip}"
            )
        self.say(self._state(job, since))

    def _ask_again(self, job: FlowJob | None, since: datetime) -> FlowJob | None:
        """The newest job now, or the one known before: a queue down for minutes must not end a wait of hours."""
        try:
            return self.newest(since)
        except ExtractError as error:
            self.say(f"{error}; asking again")
            return job

    def _state(self, job: FlowJob | None, since: datetime) -> str:
        if job is None:
            return f"flow {self.flow}: no job has started since {since.astimezone(self.zone):%Y-%m-%d %H:%M %Z}"
        return in_words(self.flow, job, self.zone)

    def _given_up(self, job: FlowJob | None, since: datetime) -> str:
        doubt = "" if job else " If one did, is the id right, and may the token see it?"
        return (
            f"{self._state(job, since)}, and wait_minutes = {self.minutes} are over\n    {UNCHANGED}{doubt}"
            f" Look at the flow in Keboola, then run again. {self._skip}"
        )

    @property
    def _skip(self) -> str:
        return f"To load without waiting for it: {self.command} --no-wait"
