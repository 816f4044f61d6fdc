"""A source that never ends, or sends too much: the run ends, says where, and publishes what is whole."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib.cli.console import ConsoleProgress
from lib.load.slice_limits import LimitedStream
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.databases import EmptyDatabase
from tests.support.project import Calendar, Project

#: what a job says whose time is over
OVER = (
    r"in.c-main.a: not staged: stage_minutes = 360 are over\n +The rows loaded before stay. Run again; if the exports"
)


@pytest.fixture
def project(database: EmptyDatabase, tmp_path: Path) -> Iterator[Project]:
    """The usual project, but an export job needs exactly one poll."""
    with KeboolaServer(polls=1, clock=Calendar()) as keboola:
        yield Project(tmp_path, database, keboola)
        keboola.faults.release()


class Night:
    """The six hours of stage_minutes pass, at the latest when these jobs are staged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *jobs: str) -> None:
        self._left, self._lock = set(jobs), threading.Lock()
        staged = ConsoleProgress.staged

        def tell(progress: ConsoleProgress, job: str, rows: int, seconds: float) -> None:
            staged(progress, job, rows, seconds)
            with self._lock:
                self._left.discard(job)

        monkeypatch.setattr(ConsoleProgress, "staged", tell)

    def clock(self) -> float:
        return 0.0 if self._left else 6 * 3600.0

    def fall(self) -> None:
        self._left.clear()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("slice", "stall", at=None, path="%2Fa%2F"),
        Fault("slice", "stall", at=0.5, nth=2, path="%2Fa%2F"),
    ],
    ids=lambda fault: f"{fault.match}-{fault.at}",
)
def test_after_stage_minutes_the_groups_that_are_whole_are_published(
    monday: Project, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = monday
    project.keboola.faults.add(fault)
    assert project.run(clock=Night(monkeypatch, "b", "c").clock).exit_code == 1
    assert re.search(OVER, project.output), project.output
    assert project.day("bronze.a") == project.day("bronze.b") == "monday" and project.day("silver.c") == "tuesday"
    project.keboola.faults.release()


def test_stage_minutes_end_the_request_of_an_export_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.put_day("monday")
    night = Night(monkeypatch, "never")
    project.keboola.faults.add(Fault("export-async", "stall", at=None, path="in.c-main.a", do=night.fall))
    assert project.run(clock=night.clock).exit_code == 1
    assert re.search(OVER, project.output), project.output


def test_stage_minutes_end_the_wait_for_an_export_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.put_day("monday")
    project.keboola.faults.add(Fault("export-async", "job", outcome="processing", path="in.c-main.a"))
    assert project.run(clock=Night(monkeypatch, "b", "c").clock).exit_code == 1
    assert re.search(OVER, project.output), project.output
    assert project.day("silver.c") == "monday"


def test_the_look_whether_the_source_changed_is_no_part_of_stage_minutes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.put_day("monday")
    night = Night(monkeypatch, "a", "b", "c")
    assert project.run(clock=night.clock).exit_code == 0, project.output


def test_stage_minutes_is_read_from_the_settings(project: Project) -> None:
    project.put_day("monday")
    project.settings = replace(project.settings, stage_minutes=0)
    assert project.run().exit_code == 1
    assert "stage_minutes = 0 are over" in project.output


@pytest.mark.parametrize("text", ["x" * 600_000, "\n" * 600_000], ids=["line", "quoted"])
def test_a_row_without_an_end_is_refused_by_slice(project: Project, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    project.put_day("monday")
    project.put("a", [("1", text)])
    monkeypatch.setattr(LimitedStream.__init__, "__defaults__", (100_000,))
    assert project.run().exit_code == 1
    words = r"in.c-main.a: slice \d \(\S+\): the row that begins at byte 1 \(unpacked\) has no end within"
    assert re.search(words, project.output), project.output
    assert project.day("silver.c") == "monday"


def test_an_export_with_far_more_rows_than_the_source_counts_stops(project: Project) -> None:
    project.put_day("monday")
    rows = [(str(number), "v") for number in range(240_000)]
    project.put("a", rows, rows_said=10)
    assert project.run().exit_code == 1
    words = r"in.c-main.a: slice \d \(\S+\): the source counts 10 rows, its export has more than 100,020\n"
    assert re.search(words, project.output), project.output
    assert "--accept a:count" in project.output and project.day("silver.c") == "monday"
