"""Waiting for a flow: Keboola's queue over real loopback HTTP, and a clock that moves when the wait pauses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lib.errors import CredentialError, EltError, ExtractError
from lib.extract.keboola_queue import KeboolaQueue
from lib.run.flow import FlowWait
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.extraction import Time, extractor_of

FLOW = "keboola.orchestrator/123456"
BEGIN = datetime(2026, 11, 28, 5, tzinfo=UTC)


class Waiting:
    """A wait for FLOW. What somebody does in Keboola happens after the given minutes."""

    def __init__(self, keboola: KeboolaServer) -> None:
        self.keboola = keboola
        self.time = Time()
        self.time.at = BEGIN.timestamp()
        self.queue = KeboolaQueue(extractor_of(keboola, self.time), FLOW)
        self.lines: list[str] = []
        self._later: list[tuple[float, Callable[[], object]]] = []

    def after(self, minutes: float, do: Callable[[], object]) -> None:
        self._later.append((self.time.at + minutes * 60, do))

    def start(self, status: str = "processing", message: str = "", minutes_ago: float = 0.0, flow: str = FLOW):
        started = (BEGIN - timedelta(minutes=minutes_ago)).timestamp()
        return self.keboola.queue.start(flow, status, message, started)

    @property
    def minutes(self) -> float:
        return (self.time.at - BEGIN.timestamp()) / 60

    def wait(self, minutes: int = 120) -> None:
        told, time = self.lines.append, self.time
        wait = FlowWait(FLOW, self.queue.newest, minutes, UTC, "main.py run", told, self._pause, time.now)
        wait.wait(BEGIN - timedelta(hours=5))

    def refusal(self, **how: int) -> str:
        with pytest.raises(ExtractError) as refused:
            self.wait(**how)
        assert refused.value.exit_code == 1
        return str(refused.value)

    def _pause(self, seconds: float) -> None:
        self.time.pause(seconds)
        for moment, do in [event for event in self._later if event[0] <= self.time.at]:
            self._later.remove((moment, do))
            do()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    with KeboolaServer() as keboola:
        yield Waiting(keboola)


def finish(job, status: str) -> Callable[[], None]:
    return lambda: setattr(job, "status", status)


@pytest.mark.parametrize("status", ["success", "warning"])
def test_a_flow_that_ended_well_is_not_waited_for(waiting: Waiting, status: str) -> None:
    waiting.start(status, minutes_ago=60)
    waiting.wait()
    assert waiting.minutes == 0
    assert waiting.lines == [f"flow {FLOW}, job 9001: {status} (started 2026-11-28 04:00 UTC)"]


def test_a_running_flow_is_waited_for_with_a_line_every_ten_minutes(waiting: Waiting) -> None:
    job = waiting.start("created")
    waiting.after(1, finish(job, "processing"))
    waiting.after(25, finish(job, "success"))
    waiting.wait()
    assert 25 <= waiting.minutes < 26
    assert [line.partition(":")[0] for line in waiting.lines] == [
        *[f"waiting, minute {minute} of 120" for minute in (0, 10, 20)],
        f"flow {FLOW}, job 9001",
    ]
    assert f"flow {FLOW}, job 9001: processing (started 2026-11-28 05:00 UTC)" in waiting.lines[1]


def test_a_flow_that_has_not_begun_today_is_waited_for_too(waiting: Waiting) -> None:
    waiting.start("success", minutes_ago=5 * 60 + 1)
    waiting.start("success", flow="keboola.orchestrator/12345")
    waiting.start("success", flow="keboola.flow/123456")
    waiting.after(3, lambda: waiting.start("success"))
    waiting.wait()
    assert waiting.lines[0] == f"waiting, minute 0 of 120: flow {FLOW}: no job has started since 2026-11-28 00:00 UTC"
    assert "job 9004: success" in waiting.lines[-1]
    assert waiting.keboola.requests[-1].parameters["startTimeFrom"] == "2026-11-28T00:00:00+00:00"


def test_a_queue_that_filters_by_day_alone_is_not_believed(waiting: Waiting) -> None:
    waiting.start("success")
    assert waiting.queue.newest(BEGIN + timedelta(microseconds=9))  # Keboola shows whole seconds
    body = '[{"id": "7", "status": "success", "isFinished": true, "startTime": "2026-11-28T04:59:59+00:00"}]'
    waiting.keboola.faults.add(Fault("queue", "status", status=200, body=body, nth=None))
    assert waiting.queue.newest(BEGIN) is None


@pytest.mark.parametrize("status", ["error", "cancelled", "terminated", "a new word"])
def test_a_flow_that_ended_badly_ends_the_run_with_its_id_and_message(waiting: Waiting, status: str) -> None:
    waiting.start("success", minutes_ago=60)
    job = waiting.start("processing", f"Task 3\nfailed at https://x/?sig=abc, token {waiting.keboola.token}")
    waiting.after(2, finish(job, status))
    waiting.after(2, lambda: setattr(job, "is_finished", True))
    first, second = waiting.refusal().splitlines()
    assert first.startswith(
        f"flow {FLOW}, job 9002: {status} (started 2026-11-28 05:00 UTC): Task 3 failed at https://x/?"
    )
    assert waiting.minutes < 3
    assert "sig=abc" not in first and waiting.keboola.token not in first
    assert "the rows loaded before stay" in second and second.endswith("main.py run --no-wait")


@pytest.mark.parametrize("status, said", [("processing", "job 9001: processing"), ("", "no job has started since")])
def test_a_wait_ends_after_its_minutes_and_says_so(waiting: Waiting, status: str, said: str) -> None:
    if status:
        waiting.start(status)
    first, second = waiting.refusal(minutes=31).splitlines()
    assert waiting.minutes == 31
    assert said in first and first.endswith("and wait_minutes = 31 are over")
    assert "the rows loaded before stay" in second and ("may the token see it?" in second) == (not status)


def test_a_queue_that_is_down_for_a_while_does_not_end_the_wait(waiting: Waiting) -> None:
    job = waiting.start()
    down = Fault("queue", "status", status=503, nth=None)
    waiting.after(5, lambda: waiting.keboola.faults.add(down))
    waiting.after(10, waiting.keboola.faults.clear)
    waiting.after(12, finish(job, "success"))
    waiting.wait()
    assert any("HTTP 503" in line and line.endswith("; asking again") for line in waiting.lines)
    assert "success" in waiting.lines[-1]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_read_the_queue_gets_one_line(waiting: Waiting, status: int) -> None:
    waiting.keboola.faults.add(Fault("queue", "status", status=status, nth=None))
    with pytest.raises(CredentialError) as refused:
        waiting.wait()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"flow {FLOW}: the token may not read Keboola's job queue: HTTP {status}")
    assert waiting.keboola.token not in line and waiting.minutes == 0


def test_a_token_that_is_wrong_altogether_is_called_that(waiting: Waiting) -> None:
    waiting.keboola.faults.add(Fault("verify", "status", status=401))
    with pytest.raises(CredentialError, match="the token was refused: .* The token came from a test"):
        waiting.wait()
    assert "queue" not in [request.kind for request in waiting.keboola.requests]


@pytest.mark.parametrize("services", ["[]", '[{"id": "queue"}]', '[{"id": "queue", "url": "ftp://x"}]', "[7]", "null"])
def test_the_token_goes_only_to_a_queue_that_the_stack_names(waiting: Waiting, services: str) -> None:
    body = f'{{"services": {services}}}'
    waiting.keboola.faults.add(Fault("index", "status", status=200, body=body))
    with pytest.raises(EltError, match=f"flow {FLOW}: 127.0.0.1:.* names no service 'queue'"):
        waiting.wait()


@pytest.mark.parametrize("body", ["{}", "no json", '["a"]'])
def test_an_answer_that_is_no_list_of_jobs_is_an_error(waiting: Waiting, body: str) -> None:
    waiting.keboola.faults.add(Fault("queue", "status", status=200, body=body))
    with pytest.raises(ExtractError, match="did not answer with a list of jobs"):
        waiting.queue.newest()
