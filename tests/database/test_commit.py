"""The connection is lost at COMMIT: the history must say what readers see, whether or not the run got an answer."""

from __future__ import annotations

import os
import random
import re
import time
from datetime import date

import pytest

from lib.config.settings import Settings
from lib.elt_schema import installation
from lib.postgres.connection import Database, execute, query
from lib.postgres.run_lock import LOCK
from lib.run import history, lost_commit
from lib.stop import StopSignal, start_thread
from sandbox.faults import Fault
from tests.support.databases import EmptyDatabase
from tests.support.postgres_proxy import PostgresProxy
from tests.support.project import Project, newest_run
from tests.support.project_process import await_rows

HOW = ("before", "answered", "at once")
#: repeat a failed test with ELT_TEST_SEED=<what it printed>
SEED = int(os.environ.get("ELT_TEST_SEED") or random.randrange(1_000_000))


def staging_tables(project: Project) -> list[tuple]:
    return project.database.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'elt_staging'")


@pytest.mark.parametrize("how", ["answered", "at once"])
def test_a_lost_answer_to_commit_is_asked_for_and_the_run_is_published(monday: Project, how: str) -> None:
    with PostgresProxy(monday.database, how) as proxy:
        monday.connect_args = proxy.connect_args
        result = monday.run()
    assert proxy.cut.is_set() and result.exit_code == 0, monday.output
    assert {record.status for record in result.records} == {"published"}
    assert monday.day("silver.a") == monday.day("bronze.c") == "tuesday"
    assert newest_run(monday) == ("done", None)
    # the answer may arrive before the cut; then the next statement is cut
    told = ["the connection was lost while PostgreSQL answered COMMIT; asked again: it is published"]
    told += ["warning: what was published stays, but: "] if how == "at once" else []
    assert any(text in monday.output for text in told)
    assert monday.last_line.startswith("run: 4 jobs published, ")
    assert staging_tables(monday) == [] or how == "at once"


def test_a_commit_that_never_arrived_is_a_failed_run(monday: Project) -> None:
    with PostgresProxy(monday.database, "before") as proxy:
        monday.connect_args = proxy.connect_args
        assert monday.run().exit_code == 1
    assert proxy.cut.is_set()
    assert "What PostgreSQL held before this run is still there." in monday.output
    assert monday.day("silver.a") == "monday"
    assert newest_run(monday)[0] == "failed"
    monday.connect_args = monday.database.connect_args
    assert monday.run(wait=True).exit_code == 0


@pytest.mark.parametrize("how, published", [("answered", ["a", "b", "both", "c"]), ("before", [])])
def test_where_nobody_answers_the_outcome_is_unknown_and_the_message_says_how_to_look(
    monday: Project, how: str, published: list[str]
) -> None:
    with PostgresProxy(monday.database, how, deaf=True) as proxy:
        monday.connect_args = proxy.connect_args
        result = monday.run(doubt_seconds=0.0)
    assert result.exit_code == 1
    assert "nobody knows whether this run was published" in monday.output
    found = "To find out: (SELECT .*;) returns a row for each job that was published. No row: nothing"
    printed = re.search(found, monday.output)
    assert printed and f"run_id = {result.run_id} " in printed[1]
    assert sorted(job for (job,) in monday.database.sql(printed[1])) == published
    assert "still there" not in monday.output
    if published:
        assert newest_run(monday) == ("done", None), "what was committed must not be called failed"
    assert ("had been published before that" in monday.output) == bool(published)


def test_a_failed_group_beside_a_published_one_stays_what_it_was(monday: Project) -> None:
    monday.put("b", [(str(number), "wednesday") for number in range(1, 11)])
    with PostgresProxy(monday.database, "answered") as proxy:
        monday.connect_args = proxy.connect_args
        assert monday.run().exit_code == 1
    assert monday.day("silver.c") == "tuesday" and monday.day("silver.a") == "monday"
    assert newest_run(monday)[0] == "failed"
    recorded = "SELECT job, status FROM elt.job_runs WHERE run_id = 2 ORDER BY job"
    assert monday.database.sql(recorded) == [
        ("a", "held back"),
        ("b", "held back"),
        ("both", "failed"),
        ("c", "published"),
    ]


class AnotherRun:
    """Queues for the run lock when the first slice is read, so that no other session gets it first."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.connection = Database(project.settings, StopSignal(), project.database.connect_args).connect("another run")
        project.keboola.faults.add(Fault("slice", do=self._queue))

    def _queue(self) -> None:
        self.began = start_thread(self._begin, "another")
        await_rows(self.project, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    def _begin(self) -> int:
        execute(self.connection, "SELECT pg_advisory_lock(%s, %s)", LOCK)
        return history.begin_run(self.connection, ["a"], "another", date(2026, 1, 1))

    def has_begun(self) -> None:
        assert self.began.result(30) == 3

    def ends(self) -> dict[int, str]:
        """The status of each run, as soon as this one has begun."""
        self.has_begun()
        found = dict(query(self.connection, "SELECT run_id, status FROM elt.runs"))
        self.connection.close()
        return found


def test_another_run_that_has_the_lock_by_then_is_proof_that_the_lost_one_is_gone(monday: Project) -> None:
    another = AnotherRun(monday)
    with PostgresProxy(monday.database, "answered") as proxy:
        monday.connect_args = proxy.connect_args
        assert monday.run().exit_code == 0, monday.output
    assert "asked again: it is published" in monday.output
    assert another.ends() == {1: "done", 2: "done", 3: "running"}


def test_a_run_that_another_calls_lost_is_not_said_to_be_published(monday: Project) -> None:
    another = AnotherRun(monday)
    with PostgresProxy(monday.database, "before", then=another.has_begun) as proxy:
        monday.connect_args = proxy.connect_args
        assert monday.run().exit_code == 1
    assert another.ends() == {1: "done", 2: "lost", 3: "running"}
    assert "What PostgreSQL held before this run is still there." in monday.output
    assert "had been published" not in monday.output


def test_a_server_that_lost_the_run_in_a_failover_did_not_publish_it(monday: Project) -> None:
    opened = Database(monday.settings, StopSignal(), monday.database.connect_args)
    asked = lost_commit.ask(opened, 99, 0, 5.0, StopSignal().pause, time.monotonic)
    assert not asked.committed and asked.connection is not None
    asked.connection.close()


def test_a_stop_while_asking_says_how_to_look(monday: Project) -> None:
    stop = StopSignal()
    with PostgresProxy(monday.database, "answered", deaf=True, then=stop.request) as proxy:
        monday.connect_args = proxy.connect_args
        result = monday.run(stop=stop)
    assert result.exit_code == 130
    warning = "warning: stopped before PostgreSQL said whether this run was published.\n    To find out: SELECT"
    assert warning in monday.output
    assert newest_run(monday) == ("done", None)


WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"


def test_a_lost_standby_does_not_keep_the_question_waiting(monday: Project) -> None:
    """COMMIT waits for a dead standby and its connection is lost. The question after it must not wait for it."""
    database, running = monday.database, []
    rest = (monday.root / "sql_scripts/silver/c.sql").read_text()
    monday.script("silver/c.sql", f"SELECT set_config('synchronous_commit', 'on', true);\n{rest}")
    database.sql(f"ALTER DATABASE {database.name} SET synchronous_commit = 'local'")
    administrator = database.connect()
    execute(administrator, "SET synchronous_commit = 'local'")
    try:
        execute(administrator, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        execute(administrator, "SELECT pg_reload_conf()")
        running.append(start_thread(monday.run, "a run"))
        await_rows(monday, f"SELECT {WAITING}")
        # from now on every session waits for the standby, also the one that asks
        execute(administrator, f"ALTER DATABASE {database.name} RESET synchronous_commit")
        execute(administrator, f"SELECT pg_terminate_backend(pid) {WAITING}")
        await_rows(monday, "SELECT FROM elt.runs WHERE run_id = 2 AND status = 'done'")
        # it has its answer and continues after the publish, where it may wait
        await_rows(monday, f"SELECT {WAITING} AND query LIKE '%DROP TABLE%'")
    finally:
        execute(administrator, "ALTER SYSTEM RESET synchronous_standby_names")
        execute(administrator, "SELECT pg_reload_conf()")
    assert running[0].result(60).exit_code == 0, monday.output


def test_a_row_that_somebody_changed_while_the_run_ran_is_not_published_over(monday: Project) -> None:
    changing = "UPDATE elt.runs SET status = 'lost' WHERE run_id = 2"
    monday.keboola.faults.add(Fault("slice", do=lambda: monday.database.sql(changing)))
    assert monday.run().exit_code == 1
    assert "row 2 of elt.runs was changed from outside during the run: nothing was published" in monday.last_line
    assert monday.day("silver.a") == "monday"


def test_a_connection_lost_after_the_commit_casts_no_doubt_on_it(monday: Project) -> None:
    with PostgresProxy(monday.database, "before", at=b"VACUUM") as proxy:
        monday.connect_args = proxy.connect_args
        assert monday.run().exit_code == 0, monday.output
    assert proxy.cut.is_set()
    assert "warning: what was published stays, but: tidying up after the run: " in monday.output
    assert "still there" not in monday.output
    assert newest_run(monday) == ("done", None)


def test_a_failure_is_written_down_only_while_the_run_is_running(database: EmptyDatabase) -> None:
    connection = Database(Settings(root=database.server.folder), keywords=database.connect_args).connect("history")
    installation.install(connection)
    run_id = history.begin_run(connection, ["a"], "pid 1", date(2026, 1, 1))
    assert history.end_run(connection, run_id, "done")
    assert not history.end_run(connection, run_id, "failed", "what is not so")
    assert query(connection, "SELECT status, error FROM elt.runs") == [("done", None)]
    execute(connection, "UPDATE elt.runs SET status = 'running'")
    assert history.end_run(connection, run_id, "failed", "so")
    connection.close()


def cut_often(project: Project, count: int) -> None:
    """Lose the connection at COMMIT `count` times: exit code, history and readers must agree."""
    print(f"ELT_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    project.put_day("day 0")
    assert project.run().exit_code == 0
    for number in range(1, count + 1):
        before, new = project.day("silver.a"), f"day {number}"
        project.put_day(new)
        with PostgresProxy(project.database, dice.choice(HOW)) as proxy:
            project.connect_args = proxy.connect_args
            # the server may notice a moment later that the connection of the run before is gone
            code = project.run(wait=True).exit_code
        found = project.day("silver.a")
        assert found == (new if code == 0 else before)
        assert newest_run(project)[0] == ("done" if code == 0 else "failed")


def test_cut_at_commit_the_exit_code_says_what_readers_see(project: Project) -> None:
    cut_often(project, 3)


@pytest.mark.long
def test_cut_at_commit_fifty_times_the_exit_code_says_what_readers_see(project: Project) -> None:
    cut_often(project, 50)
