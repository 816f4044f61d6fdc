"""What a killed run and a crashed server leave behind: yesterday's warehouse or today's, and no trace of the attempt."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from project import Project
from project_process import ProjectProcess

#: as many rows in each table as make a publish longer than the start of a process
ROWS = 10_000
#: repeat a failed test with ELT_TEST_SEED=<what it printed>
SEED = int(os.environ.get("ELT_TEST_SEED") or random.randrange(1_000_000))

LOCKS_OF_RUNS = """
    SELECT application_name, locktype, relation::regclass, mode, state, query
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND application_name LIKE 'elt %'
"""


def await_no_locks(project: Project, seconds: float = 2.0) -> None:
    """The server has noticed that a run is dead; raises AssertionError where that takes longer."""
    deadline = time.monotonic() + seconds
    connection = project.database.connect()
    with connection.cursor() as cursor:
        while True:
            cursor.execute(LOCKS_OF_RUNS)
            if not (left := cursor.fetchall()):
                break
            assert time.monotonic() < deadline, left
            time.sleep(0.02)
    connection.close()


def one_day(project: Project) -> str:
    """The day that the whole warehouse holds, every table complete."""
    days = {project.day(f"{layer}.{name}") for layer in ("bronze", "silver") for name in ("a", "b", "c")}
    assert len(days) == 1, days
    counts = project.database.sql("""
        SELECT DISTINCT count FROM (
            SELECT count(*) FROM bronze.a UNION ALL SELECT count(*) FROM bronze.b UNION ALL SELECT count(*) FROM bronze.c
            UNION ALL SELECT count(*) FROM silver.a UNION ALL SELECT count(*) FROM silver.b
            UNION ALL SELECT count(*) FROM silver.c
            UNION ALL SELECT count(*) FROM gold."both" WHERE a = b
        ) AS counts
        """)
    assert counts == [(ROWS,)]
    return days.pop()


def statuses(project: Project) -> dict[int, str]:
    """How every run ended, as the history has it."""
    return dict(project.database.sql("SELECT run_id, status FROM elt.runs"))


def assert_the_next_run_is_clean(project: Project, day: str) -> None:
    result = project.run()
    assert result.exit_code == 0, project.output
    assert {record.status for record in result.records} == {"published"}
    assert one_day(project) == day
    assert statuses(project)[result.run_id] == "done"
    assert set(statuses(project).values()) <= {"done", "lost"}
    assert project.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'") == []


# ---- kill -9 --------------------------------------------------------------------------------------------------------


def moments(project: Project, count: int, dice: random.Random) -> Iterator[tuple[int, float]]:
    """Moments spread evenly over the life of a run: so many lines printed, and so many seconds after the last of them.

    Lines and not the clock alone, so that a busy machine does not move all of them to the beginning.
    """
    project.put_day("the day of the stopwatch", ROWS)
    with ProjectProcess(project) as process:
        assert process.exit_code() == 0
        times = [*process.times, time.monotonic()]
    life = times[-1] - times[0]
    for place in dice.sample(range(count), count):
        moment = times[0] + life * (place + dice.random()) / count
        lines = sum(when <= moment for when in times)
        yield lines, moment - times[lines - 1]


def phase(lines: list[str], is_new: bool) -> str:
    """Where a run was when it was killed."""
    if is_new:
        return "after the commit"
    if any(" load " in line for line in lines):
        return "publish"
    return "stage" if len(lines) > 1 else "before the first export"


def kill_often(project: Project, count: int) -> Counter[str]:
    """Kill so many loads; each finds the warehouse of the day before and is followed by a load that is left alone."""
    print(f"ELT_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    project.put_day("the first day", ROWS)
    assert project.run().exit_code == 0
    phases: Counter[str] = Counter()
    for number, (lines, seconds) in enumerate(moments(project, count, dice), start=1):
        old, new, before = one_day(project), f"day {number}", statuses(project)
        project.put_day(new, ROWS)
        with ProjectProcess(project) as process:
            process.wait_for(lambda printed: len(printed) >= lines)
            process.run_on(seconds)
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
    phases = kill_often(project, 20)
    assert phases["stage"] and phases["publish"] >= 3, phases


@pytest.mark.long
def test_killed_at_200_moments_a_run_leaves_the_old_or_the_new_and_no_lock(project: Project) -> None:
    phases = kill_often(project, 200)
    assert len(phases) == 4, phases
