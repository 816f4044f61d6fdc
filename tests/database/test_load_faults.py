"""Whole runs while Keboola or a store fails: what the run prints, what readers see, and that the next run succeeds."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib.stop import StopSignal
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.clouds import CLOUDS
from tests.support.databases import EmptyDatabase
from tests.support.project import Calendar, Project, loading

TABLE_A = "in.c-main.a"


@pytest.fixture
def project(database: EmptyDatabase, tmp_path: Path) -> Iterator[Project]:
    """The usual project, but an export job needs exactly one poll."""
    with KeboolaServer(polls=1, clock=Calendar()) as keboola:
        yield Project(tmp_path, database, keboola)
        keboola.faults.release()


class Hasty(StopSignal):
    """Never waits, but can still be stopped."""

    def pause(self, seconds: float) -> None:
        self.raise_if_requested()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("verify", "status"),
        Fault("table", "cut", at=0.5, nth=2),
        Fault("export-async", "status", status=502),
        Fault("job", "status", status=429, retry_after="30"),
        Fault("file", "cut", at=None),
        Fault("manifest", "cut", at=0.9),
        Fault("slice", "cut", at=0.5, nth=2, path="%2Fa%2F"),
        Fault("slice", "status", status=401, nth=5),
        Fault("*", "status", nth=None, share=0.05, seed=3),
    ],
    ids=lambda fault: f"{fault.match}-{fault.action}",
)
def test_a_fault_that_passes_is_not_noticed(project: Project, fault: Fault) -> None:
    project.put_day("monday", count=2000)
    project.keboola.faults.add(fault)
    result = project.run(stop=Hasty())
    assert result.exit_code == 0, project.output
    assert [project.day(relation) for relation in ("bronze.a", "silver.b", "silver.c")] == ["monday"] * 3


@pytest.mark.parametrize(
    "fault, message",
    [
        (Fault("table", "status", status=404, path=TABLE_A), "table in.c-main.a: HTTP 404"),
        (Fault("export-async", "status", nth=None, path=TABLE_A), "export of in.c-main.a: HTTP 503 .*after 4 tries"),
        (Fault("export-async", "job", path=TABLE_A), r"export of in.c-main.a \(job \d+\) failed: .*exceptionId"),
        (Fault("export-async", "job", outcome="cancelled", path=TABLE_A), r"a \(job \d+\) was cancelled in Keboola"),
        (
            Fault("slice", "status", status=404, nth=None, path="%2Fa%2F"),
            r"in.c-main.a \(job \d+\), slice \d \S+: the object is gone",
        ),
        (Fault("slice", "status", status=403, nth=None, path="%2Fa%2F"), r"slice \d .*the store refuses the object"),
        (Fault("slice", "cut", at=0, nth=None, path="%2Fa%2F"), "the connection was cut after 0 of .*gave up"),
        (Fault("slice", "truncate", at=0.5, path="%2Fa%2F"), "the gzip data end early"),
        (Fault("slice", "corrupt", at=-6, path="%2Fa%2F"), "the gzip data are damaged"),
    ],
    ids=lambda value: f"{value.match}-{value.action}" if isinstance(value, Fault) else "",
)
def test_a_fault_that_lasts_keeps_the_group_as_it_was_and_the_next_run_is_clean(
    project: Project, fault: Fault, message: str
) -> None:
    project.put_day("monday", count=2000)
    assert project.run(stop=Hasty()).exit_code == 0
    project.put_day("tuesday", count=2000)
    project.keboola.faults.add(fault)
    assert project.run(stop=Hasty()).exit_code == 1
    assert re.search(message, project.output), project.output
    assert [project.day(relation) for relation in ("bronze.a", "bronze.b", "silver.a")] == ["monday"] * 3
    assert project.day("silver.c") == "tuesday"
    ((error,),) = project.database.sql("SELECT error FROM elt.job_status WHERE job = 'a'")
    assert re.search(message, error)
    project.keboola.faults.clear()
    assert project.run(stop=Hasty()).exit_code == 0
    assert [project.day(relation) for relation in ("bronze.a", "silver.b", "silver.c")] == ["tuesday"] * 3


def test_export_minutes_says_how_long_an_export_may_take(project: Project) -> None:
    project.put_day("monday")
    project.settings = replace(project.settings, export_minutes=0)
    assert project.run(stop=Hasty()).exit_code == 1
    assert re.search(
        r"in.c-main.a \(job \d+\): still 'waiting' after 0 minutes; .*\[keboola\] export_minutes", project.output
    )


def exports_of(project: Project, table: str) -> int:
    asked = [request.path for request in project.keboola.requests if request.kind == "export-async"]
    return sum(path.endswith(f"{table}/export-async") for path in asked)


@pytest.mark.parametrize("is_sliced", [True, False], ids=["sliced", "whole"])
@pytest.mark.parametrize("provider", CLOUDS)
def test_a_file_that_is_gone_in_the_middle_is_exported_again_and_no_row_is_lost_or_doubled(
    database: EmptyDatabase, tmp_path: Path, provider: str, is_sliced: bool
) -> None:
    with KeboolaServer(store=CLOUDS[provider], sliced=is_sliced, polls=1) as keboola:
        project = Project(tmp_path, database, keboola)
        project.registry = {"a": loading("a")}
        rows = [(str(number), f"monday {number}") for number in range(4000)]
        project.put("a", rows)
        if not is_sliced:
            keboola.faults.add(Fault("slice", "cut", at=0.5))
        # the last slice, or the second half of the only object
        keboola.faults.add(Fault("slice", nth=4 if is_sliced else 2, do=keboola.expire_files))
        assert project.run(stop=Hasty()).exit_code == 0, project.output
        assert project.output.count("the object is gone") == project.output.count("exporting it again") == 1
        assert sorted(project.rows("bronze.a")) == sorted(rows)
        assert exports_of(project, TABLE_A) == 2
        assert database.sql("SELECT rows_loaded FROM elt.job_runs") == [(4000,)]


@pytest.mark.parametrize("kind", ["file", "manifest", "slice"])
def test_a_file_that_is_gone_twice_fails_its_group(project: Project, kind: str) -> None:
    project.put_day("monday", count=2000)
    assert project.run(stop=Hasty()).exit_code == 0
    project.put_day("tuesday", count=2000)
    project.registry = {name: job for name, job in project.registry.items() if name != "c"}
    project.keboola.requests.clear()
    project.keboola.faults.add(Fault(kind, "status", status=404, nth=None))
    assert project.run(stop=Hasty()).exit_code == 1
    assert re.search(r"gone.*, for the second time. The rows loaded before stay. Run again", project.output)
    assert exports_of(project, TABLE_A) == exports_of(project, "in.c-main.b") == 2
    assert [project.day(relation) for relation in ("bronze.a", "silver.b")] == ["monday"] * 2


def test_only_the_table_whose_file_is_gone_is_exported_again(project: Project) -> None:
    project.put_day("monday", count=2000)
    project.keboola.faults.add(Fault("slice", "status", status=404, nth=3, path="%2Fa%2F"))
    assert project.run(stop=Hasty()).exit_code == 0, project.output
    assert [exports_of(project, f"in.c-main.{name}") for name in "abc"] == [2, 1, 1]
    assert [project.day(relation) for relation in ("bronze.a", "silver.b", "silver.c")] == ["monday"] * 3


def test_a_table_that_changes_while_another_is_exported_again_is_seen(project: Project) -> None:
    project.put_day("monday", count=200)
    a_is_gone = Fault("slice", "status", status=404, nth=3, path="%2Fa%2F", do=lambda: project.put_day("tuesday", 200))
    project.keboola.faults.add(a_is_gone)
    assert project.run(stop=Hasty()).exit_code == 0, project.output
    assert [project.day(relation) for relation in ("bronze.a", "bronze.b")] == ["tuesday"] * 2
    assert "in.c-main.b changed in the source while it was exported" in project.output


def test_a_token_refused_in_the_middle_of_a_run_ends_it(project: Project) -> None:
    project.put_day("monday")
    project.keboola.faults.add(Fault("file", "status", status=401, nth=2))
    assert project.run(stop=Hasty()).exit_code == 2
    assert "the token was refused" in project.output


@pytest.mark.parametrize("kind", ["table", "export-async", "job", "manifest", "slice"])
def test_a_stop_is_obeyed_while_keboola_is_silent(project: Project, kind: str) -> None:
    project.put_day("monday")
    project.keboola.faults.add(Fault(kind, "stall", at=None))
    stop = StopSignal()
    run = threading.Thread(target=project.run, kwargs={"stop": stop})
    run.start()
    assert project.keboola.faults.stalled.wait(30)
    began = time.monotonic()
    stop.request()
    run.join(timeout=30)
    assert time.monotonic() - began < 5
    assert "stopped by Ctrl-C" in project.output
