"""Implements the call of Keboola's job queue that finds jobs of a flow (docs/keboola.md 13.4)."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from sandbox.messages import Request, Response, json_response
from sandbox.store_access import Clock

PATH = "/search/jobs"
FINISHED = ("success", "warning", "error", "cancelled", "terminated")


@dataclass
class FlowJob:
    """A job of a flow, such as keboola.orchestrator/123456. Tests change its status and message."""

    id: str
    flow: str
    #: such as processing, success, warning, error or terminated
    status: str
    #: epoch seconds; None: it is still waiting
    started: float | None
    message: str = ""
    #: None: as the status says
    is_finished: bool | None = None

    def fields(self) -> dict[str, object]:
        component, _, config = self.flow.partition("/")
        started = None if self.started is None else datetime.fromtimestamp(self.started, UTC).isoformat("T", "seconds")
        return {
            "id": self.id,
            "runId": self.id,
            "component": component,
            "config": config,
            "status": self.status,
            "isFinished": self.status in FINISHED if self.is_finished is None else self.is_finished,
            "createdTime": started,
            "startTime": started,
            "result": {"message": self.message} if self.message else [],
        }


class JobQueue:
    """The jobs of every flow, the newest last."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token, self._clock = token, clock
        self._ids = itertools.count(9001)
        self._jobs: list[FlowJob] = []
        self._lock = threading.Lock()

    def start(self, flow: str, status: str = "processing", message: str = "", started: float | None = None) -> FlowJob:
        """Add a job, which started now unless said otherwise."""
        job = FlowJob(str(next(self._ids)), flow, status, self._clock() if started is None else started, message)
        with self._lock:
            self._jobs.append(job)
        return job

    def answer(self, request: Request) -> Response:
        """The response to GET search/jobs."""
        if request.headers.get("x-storageapi-token") != self._token:
            return refuse(401, "Invalid access token")
        asked = request.query()
        since, limit = str(asked.get("startTimeFrom", "")), int(str(asked.get("limit", 100)))
        if asked.get("sortBy") != "startTime" or asked.get("sortOrder") != "desc":
            return refuse(501, f"The sandbox sorts by startTime, not by {asked}")
        with self._lock:
            jobs = [job for job in self._jobs if job.flow == f"{asked.get('componentId')}/{asked.get('configId')}"]
        if since:
            first = datetime.fromisoformat(since).timestamp()
            jobs = [job for job in jobs if job.started is not None and job.started >= first]
        jobs.sort(key=lambda job: job.started or 0, reverse=True)
        return json_response([job.fields() for job in jobs[:limit]])


def refuse(status: int, message: str) -> Response:
    """An error as the queue sends it; its code is the status."""
    return json_response({"error": message, "code": status, "status": "error", "exceptionId": "sandbox-queue"}, status)
