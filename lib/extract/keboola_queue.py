"""Keboola's job queue: the newest job of a flow (docs/keboola.md 13.4)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

import requests

from lib.errors import CredentialError, ExtractError
from lib.extract import FlowJob
from lib.extract.http import Call, parse_moment, parsed
from lib.extract.keboola import KeboolaExtractor

#: statuses after which a job does not go on; a status that is not known has ended if the job says so
FINAL = ("success", "warning", "error", "cancelled", "terminated")


class KeboolaQueue:
    """Finds jobs of one flow. flow: component and id, such as keboola.orchestrator/123456."""

    def __init__(self, keboola: KeboolaExtractor, flow: str) -> None:
        self._keboola, self._flow = keboola, flow
        self._subject = f"flow {flow}"
        self._address = ""

    def newest(self, since: datetime | None = None) -> FlowJob | None:
        """The job of the flow that started last, at or after `since`; None if there is none.

        Raises CredentialError if the token is refused or may not read the queue.
        """
        if not self._address:
            self._keboola.describe()  # a token that is wrong altogether is refused here
            self._address = self._keboola.service("queue", self._subject)
        component, _, config = self._flow.partition("/")
        asked = {"componentId": component, "configId": config, "sortBy": "startTime", "sortOrder": "desc", "limit": "1"}
        if since is not None:
            asked["startTimeFrom"] = since.astimezone(UTC).isoformat(timespec="seconds")
        url = f"{self._address}/search/jobs?{urlencode(asked)}"
        jobs = self._jobs(self._keboola.http.send(Call(self._subject, url, headers=self._keboola.headers)))
        found = self._read(jobs[0]) if jobs else None
        # whether the queue compares more than the day is not known; it was asked for whole seconds
        is_older = found and since and found.started and found.started < since.replace(microsecond=0)
        return None if is_older else found

    def _jobs(self, response: requests.Response) -> list[Mapping[str, object]]:
        if response.status_code in (401, 403):
            raise CredentialError(
                f"{self._subject}: the token may not read Keboola's job queue: {self._keboola.http.words_of(response)}."
                " Use one that may (Users & Settings > API Tokens: access to the flow's component), or put a # before"
                " wait_for_flow in elt_settings.toml"
            )
        if not response.ok:
            raise ExtractError(f"{self._subject}: the job queue said {self._keboola.http.words_of(response)}")
        jobs = parsed(response)
        if isinstance(jobs, list) and all(isinstance(job, dict) for job in jobs):
            return jobs
        raise ExtractError(f"{self._subject}: the job queue did not answer with a list of jobs")

    def _read(self, job: Mapping[str, object]) -> FlowJob:
        status, result = str(job.get("status")), job.get("result")
        message = str(result.get("message") or "") if isinstance(result, dict) else ""
        return FlowJob(
            id=str(job.get("id")),
            status=status,
            has_ended=job.get("isFinished") is True or status in FINAL,
            started=parse_moment(job.get("startTime")),
            message=self._keboola.http.scrub(" ".join(message.split())),
        )
