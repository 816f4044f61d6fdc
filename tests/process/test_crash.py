"""A killed run or a crashed server leaves yesterday's warehouse or today's, and nothing of the failed attempt."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lib.postgres.embedded.server import Server, remove
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support.databases import fresh_database
from tests.support.project import Calendar, Project
from tests.support.project_child import READY
from tests.support.project_process import PATIENCE, Moment, ProjectProcess, await_no_locks, await_rows

#: rows per table, so many that a publish takes longer than the start of a process
ROWS = 2_000
#: repeat a failed test with ELT_TEST_SEED=<what it printed>
SEED = int(os.environ.get("ELT_TEST_SEED") or random.randrange(1_000_000))


def one_day(project: Project) -> str:
    """The day of the warehouse: all tables must hold the same one, completely."""
    tables = [f"{layer}.{name}" for layer in ("bronze", "silver") for name in ("a", "b", "c")]
    looks = [f"SELECT v, count(*) FROM {table} GROUP BY v" for table in tables]
    found = project.database.sql(" UNION ".join([*looks, "SELECT a, count(*) FROM gold.both WHERE a = b GROUP BY a"]))
    assert len(found) == 1 and found[0][1] == ROWS, found
    return found[0][0]


def statuses(project: Project) -> dict[int, str]:
    """The status of each run in the history."""
    return dict(project.database.sql("SELECT run_id, status FROM elt.runs"))


def assert_the_next_run_is_clean(project: Project, day: str) -> None:
    result = project.run()
    assert result.exit_code == 0, project.output
    # a run that was killed after its COMMIT has left nothing to do
    assert result.unchanged_since or {record.status for record in result.records} == {"published"}
    assert one_day(project) == day
    assert statuses(project)[result.run_id] == "done"
    assert set(statuses(project).values()) <= {"done", "lost", "cancelled"}
    assert project.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'") == []


# ---- kill -9 --------------------------------------------------------------------------------------------------------


def moments(project: Project, count: int, dice: random.Random) -> Iterator[Moment]:
    """Moments spread evenly over the life of a run, from its first line to its summary, in random order."""
    project.put_day("the day of the stopwatch", ROWS)
    with ProjectProcess(project) as process:
        assert process.exit_code() == 0, process.output
    yield from spread(process.times, count, dice)


def spread(times: list[float], count: int, dice: random.Random) -> Iterator[Moment]:
    """Moments spread evenly over the life of a process that printed lines at these times, in random order."""
    life = times[-1] - times[0]
    for place in dice.sample(range(count), count):
        when = times[0] + life * (place + dice.random()) / count
        lines = sum(printed <= when for printed in times)
        yield Moment(lines, when - times[lines - 1])


def phase(lines: list[str], is_new: bool) -> str:
    """The phase in which a run was killed."""
    if is_new:
        return "after the commit"
    if any(line.startswith("load ") for line in lines):
        return "publish"
    return "stage" if any(line.startswith("into ") for line in lines) else "before the first export"


def kill_often(project: Project, count: int) -> Counter[str]:
    """Kill `count` loads. Each starts from the warehouse of the day before, and a complete load follows it."""
    print(f"ELT_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    project.put_day("the first day", ROWS)
    assert project.run().exit_code == 0
    phases: Counter[str] = Counter()
    for number, moment in enumerate(moments(project, count, dice), start=1):
        old, new, before = one_day(project), f"day {number}", statuses(project)
        project.put_day(new, ROWS)
        with ProjectProcess(project) as process:
            process.run_until(moment)
            process.kill()
            await_no_locks(project)
            found = one_day(project)
            assert found in (old, new)
            recorded = [status for run, status in statuses(project).items() if run not in before]
            assert recorded == ["done"] if found == new else recorded in ([], ["running"]), process.output
            phases[phase(process.lines, found == new)] += 1
        assert_the_next_run_is_clean(project, new)
    print(dict(phases))
    return phases


def test_killed_at_any_moment_a_run_leaves_the_old_or_the_new_and_no_lock(project: Project) -> None:
    phases = kill_often(project, 5)
    assert len(phases) >= 2, phases


def kill_first_runs(project: Project, count: int) -> None:
    """Kill `count` runs, each on an empty database."""
    print(f"ELT_TEST_SEED={SEED}")
    for moment in moments(project, count, random.Random(SEED)):
        project.database.sql("DROP SCHEMA IF EXISTS elt, elt_staging, bronze, silver, gold CASCADE")
        project.put_day("monday", ROWS)
        with ProjectProcess(project) as process:
            process.run_until(moment)
            process.kill()
            await_no_locks(project)
        tables = project.database.sql("SELECT count(*) FROM pg_tables WHERE schemaname IN ('bronze', 'silver')")
        assert tables == [(0,)] or one_day(project) == "monday"
        assert_the_next_run_is_clean(project, "monday")


def test_killed_at_any_moment_a_first_run_leaves_nothing_or_all(project: Project) -> None:
    kill_first_runs(project, 2)


@pytest.mark.long
def test_killed_at_50_moments_a_first_run_leaves_nothing_or_all(project: Project) -> None:
    kill_first_runs(project, 50)


def kill_undos(project: Project, count: int) -> Counter[bool]:
    """Kill `count` undos. Each would bring back the warehouse of the day before. Returns how many had done it."""
    print(f"ELT_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    for day in ("the first day", "the day of the stopwatch"):
        project.put_day(day, ROWS)
        assert project.run().exit_code == 0, project.output
    with ProjectProcess(project, "undo") as process:
        assert process.exit_code() == 0, process.output
    assert one_day(project) == "the first day"
    ends: Counter[bool] = Counter()
    for number, moment in enumerate(spread(process.times, count, dice), start=1):
        old, new = one_day(project), f"day {number}"
        project.put_day(new, ROWS)
        result = project.run()
        assert result.exit_code == 0, project.output
        with ProjectProcess(project, "undo") as process:
            process.run_until(moment)
            process.kill()
            await_no_locks(project)
        is_undone = one_day(project) == old
        assert is_undone or one_day(project) == new
        recorded = project.database.sql(
            "SELECT kind, status, undone_run_id FROM elt.runs WHERE run_id > %s", result.run_id
        )
        assert recorded == ([("undo", "done", result.run_id)] if is_undone else [])
        published = project.database.sql("SELECT DISTINCT status FROM elt.job_runs WHERE run_id = %s", result.run_id)
        assert published == [("undone" if is_undone else "published",)]
        ends[is_undone] += 1
        if not is_undone:
            project.undo()
        assert one_day(project) == old
    return ends


def test_killed_at_any_moment_an_undo_leaves_the_old_or_the_new(project: Project) -> None:
    kill_undos(project, 3)


@pytest.mark.long
def test_killed_at_100_moments_an_undo_leaves_the_old_or_the_new(project: Project) -> None:
    assert min(kill_undos(project, 100).values()) > 2


def stop_often(project: Project, count: int) -> None:
    """Send SIGTERM to `count` loads. Each ends at once, says so, and is recorded with the right status."""
    print(f"ELT_TEST_SEED={SEED}")
    project.put_day("the first day", ROWS)
    assert project.run().exit_code == 0
    for number, moment in enumerate(moments(project, count, random.Random(SEED)), start=1):
        old, new, before = one_day(project), f"day {number}", statuses(project)
        project.put_day(new, ROWS)
        with ProjectProcess(project) as process:
            process.run_until(moment)
            process.send(signal.SIGTERM)
            code = process.exit_code()
        found = one_day(project)
        recorded = [status for run, status in statuses(project).items() if run not in before]
        # before the signal handler is set and after the run has ended, Python's default exit is right
        if found == new:
            assert code in (0, -signal.SIGTERM) and recorded == ["done"], (code, recorded, process.output)
        elif code == -signal.SIGTERM:
            assert found == old and process.lines == [READY]
        else:
            assert found == old and code == 143 and recorded in ([], ["cancelled"]), (code, recorded, process.output)
            assert "stopped by SIGTERM" in process.lines[-1], process.output
        assert "Traceback" not in process.output
        assert_the_next_run_is_clean(project, new)


def test_told_to_stop_at_any_moment_a_run_says_so_and_leaves_the_old_or_the_new(project: Project) -> None:
    stop_often(project, 3)


@pytest.mark.long
def test_told_to_stop_at_100_moments_a_run_says_so_and_leaves_the_old_or_the_new(project: Project) -> None:
    stop_often(project, 100)


@pytest.mark.long
def test_killed_at_200_moments_a_run_leaves_the_old_or_the_new_and_no_lock(project: Project) -> None:
    phases = kill_often(project, 200)
    assert len(phases) == 4, phases


# ---- the server crashes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server(servers: Mapping[int, Server]) -> Iterator[Server]:
    """A server for this test only, which is restarted as after a crash."""
    shared = servers[18]
    folder = shared.folder.parent / "crashing"
    yield Server.start(folder, 18, fsync=False, settings=shared.settings)
    remove(folder)


@pytest.fixture
def own_project(own_server: Server, tmp_path: Path) -> Iterator[Project]:
    with fresh_database(own_server) as database, KeboolaServer(polls=0, clock=Calendar()) as keboola:
        yield Project(tmp_path, database, keboola)


def assert_it_failed_clearly(process: ProjectProcess, code: int) -> None:
    assert code == 1, process.output
    assert "Traceback" not in process.output
    causes = "The connection to PostgreSQL was lost", "cannot connect to PostgreSQL"
    assert any(cause in process.output for cause in causes), process.output
    ended = process.lines[-1].startswith("daily load: stopped: ")
    # libpq has its own message if the server stops while it connects
    assert ended or any(line.startswith("error: ") for line in process.lines), process.output


def test_a_server_that_crashes_while_rows_are_staged_leaves_the_old_data(own_project: Project) -> None:
    project = own_project
    project.put_day("monday", ROWS)
    project.run()
    project.put_day("tuesday", ROWS)
    project.keboola.faults.add(Fault("slice", "stall", at=0.5, nth=2))
    with ProjectProcess(project) as process:
        assert project.keboola.faults.stalled.wait(PATIENCE)
        project.database.server.restart("immediate")
        project.keboola.faults.release()
        assert_it_failed_clearly(process, process.exit_code())
    assert one_day(project) == "monday"
    project.keboola.faults.clear()
    assert_the_next_run_is_clean(project, "tuesday")


def test_a_server_that_crashes_in_the_middle_of_a_publish_leaves_the_old_data(own_project: Project) -> None:
    project = own_project
    project.put_day("monday", ROWS)
    project.run()
    project.put_day("tuesday", ROWS)
    script = (project.root / "sql_scripts/silver/c.sql").read_text()
    project.script("silver/c.sql", f"{script}SELECT pg_sleep(60);")
    with ProjectProcess(project) as process:
        await_rows(project, "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND wait_event = 'PgSleep'")
        project.database.server.restart("immediate")
        assert_it_failed_clearly(process, process.exit_code())
    assert one_day(project) == "monday"
    project.script("silver/c.sql", script)
    assert_the_next_run_is_clean(project, "tuesday")


def crash_often(project: Project, count: int) -> None:
    """Restart the server `count` times in the middle of a load."""
    dice = random.Random(SEED)
    print(f"ELT_TEST_SEED={SEED}")
    project.put_day("the first day", ROWS)
    assert project.run().exit_code == 0
    for number, moment in enumerate(moments(project, count, dice), start=1):
        old, new = one_day(project), f"day {number}"
        project.put_day(new, ROWS)
        with ProjectProcess(project) as process:
            process.run_until(moment)
            project.database.server.restart("immediate")
            code = process.exit_code()
        found = one_day(project)
        assert found in (old, new)
        if code == 0:
            assert found == new, process.output
        else:
            assert_it_failed_clearly(process, code)
        assert_the_next_run_is_clean(project, new)


def test_a_server_that_crashes_at_any_moment_leaves_the_old_or_the_new(own_project: Project) -> None:
    crash_often(own_project, 2)


@pytest.mark.long
def test_a_server_that_crashes_at_50_moments_leaves_the_old_or_the_new(own_project: Project) -> None:
    crash_often(own_project, 50)
