"""A run of all jobs waits for the flow in Keboola, before it takes the run lock and before it is recorded."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from lib.cli.arguments import run_parser
from lib.cli.check import check
from lib.cli.console import Console
from lib.cli.run import run_jobs
from lib.config.settings import Postgres, Settings
from lib.errors import Cancelled, ExtractError
from lib.postgres.connection import Database
from lib.postgres.run_lock import take_run_lock
from lib.run.flow import counting_from
from lib.stop import StopSignal
from sandbox.faults import Fault
from tests.support.project import Project, assert_it_is_still_monday, newest_run

FLOW = "keboola.flow/123456"


@pytest.fixture
def waiting(monday: Project) -> Project:
    """Monday is loaded, tuesday is in Keboola, and runs wait for a flow."""
    monday.settings = replace(monday.settings, wait_for_flow=FLOW)
    return monday


def start(project: Project, status: str, message: str = "", ago: timedelta = timedelta(0)) -> None:
    project.keboola.queue.start(FLOW, status, message, (datetime.now(UTC) - ago).timestamp())


def asked(project: Project) -> int:
    return sum(request.kind == "queue" for request in project.keboola.requests)


def test_a_run_goes_on_once_the_flow_has_ended_well(waiting: Project) -> None:
    start(waiting, "warning")
    assert waiting.run(wait_for_flow=True).exit_code == 0
    assert waiting.day("silver.a") == "tuesday"
    assert waiting.output.index(f"flow {FLOW}, job 9001: warning") < waiting.output.index("run 2")


def test_a_flow_that_failed_leaves_the_old_rows_and_no_trace(waiting: Project) -> None:
    start(waiting, "error", "Task 3 failed")
    before = newest_run(waiting)
    holder = Database(waiting.settings, StopSignal(), waiting.connect_args).connect("holder")
    take_run_lock(holder)  # and another run at work makes no difference yet
    with pytest.raises(ExtractError, match="job 9001: error .*: Task 3 failed"):
        waiting.run(wait_for_flow=True)
    holder.close()
    assert newest_run(waiting) == before
    assert_it_is_still_monday(waiting)


def test_a_stop_ends_the_wait_at_once(waiting: Project) -> None:
    start(waiting, "processing")
    stop = StopSignal()
    waiting.keboola.faults.add(Fault("queue", do=lambda: stop.request(15)))
    with pytest.raises(Cancelled) as stopped:
        waiting.run(wait_for_flow=True, stop=stop)
    assert stopped.value.exit_code == 143
    assert newest_run(waiting)[0] == "done"


def test_a_job_of_the_flow_counts_from_today_or_from_the_last_run_that_published(waiting: Project) -> None:
    zone = ZoneInfo("Asia/Tokyo")
    now = datetime(2026, 11, 28, 5, 30, tzinfo=zone)
    connection = waiting.database.connect()
    waiting.database.sql(
        "INSERT INTO elt.runs (status, started_at) VALUES ('failed', '2026-11-01Z');"
        "INSERT INTO elt.job_runs (run_id, job, status) VALUES (2, 'a', 'failed'), (2, 'c', 'published')"
    )
    today = "2026-11-27 15:00+00"
    for change, expected in (
        ("UPDATE elt.runs SET started_at = '2026-11-27 06:00Z'", "2026-11-27 06:00+00"),
        ("UPDATE elt.runs SET started_at = '2026-11-27 18:00Z'", today),
        ("UPDATE elt.runs SET started_at = '2026-11-27 06:00Z'; UPDATE elt.job_runs SET status = 'held back'", today),
        ("ALTER TABLE elt.runs DROP COLUMN started_at CASCADE", today),
        ("DROP SCHEMA elt CASCADE", today),
    ):
        waiting.database.sql(change)
        assert counting_from(connection, now) == datetime.fromisoformat(expected), change


def test_only_a_run_of_all_jobs_without_no_wait_asks(waiting: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    start(waiting, "success")
    waiting.write_registry()
    for name, value in waiting.keboola.store_environment.items():
        monkeypatch.setenv(name, value)
    settings = of_the_command(waiting)
    without = replace(settings, wait_for_flow=None)
    for typed, jobs, given in (
        (["c"], [], settings),
        ([], ["c"], settings),
        (["--no-wait"], [], settings),
        ([], [], without),
    ):
        assert run_jobs(run_parser().parse_args([*typed, "--quiet"]), jobs, given) == 0
        assert asked(waiting) == 0, (typed, jobs)
    assert run_jobs(run_parser().parse_args(["--quiet"]), [], settings) == 0
    assert asked(waiting) == 1


def of_the_command(project: Project) -> Settings:
    address = dict(project.connect_args)
    return replace(project.settings, postgres=Postgres(**address | {"port": int(address["port"])}))


def test_check_online_shows_the_newest_job_or_what_is_wrong(waiting: Project, tmp_path: Path) -> None:
    waiting.write_registry()
    settings = of_the_command(waiting)

    def found() -> str:
        stream = io.StringIO()
        exit_code = check(settings, Console(out=stream, err=stream), online=True)
        (line,) = [line for line in stream.getvalue().splitlines() if FLOW in line]
        assert exit_code == (2 if line.startswith("error") else 0)
        return line

    assert found() == f"warning: flow {FLOW}: no job is to be seen. Is the id right, and may the token see its jobs?"
    start(waiting, "error", "Task 3 failed", ago=timedelta(days=9))
    assert found().startswith(f"ok: flow {FLOW}, job 9001: error (started 20") and found().endswith("): Task 3 failed")
    waiting.keboola.faults.add(Fault("queue", "status", status=403))
    assert found().startswith(f"error: flow {FLOW}: the token may not read Keboola's job queue: HTTP 403")
