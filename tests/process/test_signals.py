"""Runs as processes of their own: one at a time, killed, told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lib.postgres.connection import Database, execute, query
from lib.stop import StopSignal
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer
from tests.support import ROOT
from tests.support.colleague import somebody_holding
from tests.support.project import Calendar, Project, assert_it_is_still_monday, newest_run
from tests.support.project_process import PATIENCE, ProjectProcess, await_no_locks, await_rows

LONG_STATEMENT = "SELECT pg_sleep(61);"
IN_THE_LONG_STATEMENT = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
#: seconds within which a run must end after a signal
AT_ONCE = 2.0


def add_a_long_statement(project: Project, path: str = "silver/c.sql") -> None:
    script = (project.root / "sql_scripts" / path).read_text()
    project.script(path, script + LONG_STATEMENT)


# ---- one run at a time ----------------------------------------------------------------------------------------------


@contextmanager
def a_run_held_up(project: Project) -> Iterator[ProjectProcess]:
    """A run that waits for a slice until the faults are released."""
    project.keboola.faults.add(Fault("slice", "stall", at=0.5))
    with ProjectProcess(project) as process:
        assert project.keboola.faults.stalled.wait(PATIENCE), process.output
        yield process


def test_a_second_run_does_nothing_exits_75_and_names_the_first(monday: Project) -> None:
    with a_run_held_up(monday) as first:
        runs = monday.database.sql("SELECT count(*) FROM elt.runs")
        with ProjectProcess(monday) as second:
            assert second.exit_code() == 75
        assert f"another run is at work here: elt pid {first.pid} on {socket.gethostname()[:5]}" in second.output
        assert f" since {time.strftime('%Y-%m-%d', time.gmtime())} " in second.output
        assert "--wait" in second.output
        assert monday.database.sql("SELECT count(*) FROM elt.runs") == runs
        assert [request.kind for request in monday.keboola.requests].count("verify") == 1
        monday.keboola.faults.release()
        assert first.exit_code() == 0, first.output
    assert monday.day("silver.c") == "tuesday"


def waiting(process: ProjectProcess) -> str:
    return (
        f"SELECT FROM pg_stat_activity WHERE application_name LIKE 'elt pid {process.pid} %'"
        " AND query LIKE '%advisory%'"
    )


def test_with_wait_a_second_run_queues_and_then_runs(monday: Project) -> None:
    with a_run_held_up(monday) as first, ProjectProcess(monday, "--wait") as second:
        await_rows(monday, waiting(second))
        monday.keboola.faults.release()
        assert first.exit_code() == 0, first.output
        assert second.exit_code() == 0, second.output
    assert monday.database.sql("""
        SELECT second.status FROM elt.runs AS first, elt.runs AS second
        WHERE first.run_id = 2 AND second.run_id = 3 AND second.started_at >= first.finished_at
        """) == [("done",)]


def test_ctrl_c_ends_the_wait_for_another_run(monday: Project) -> None:
    with a_run_held_up(monday), ProjectProcess(monday, "--wait") as second:
        await_rows(monday, waiting(second))
        assert_it_ends_at_once(second, signal.SIGINT, 130)


# ---- a lock that is lost --------------------------------------------------------------------------------------------


def test_a_run_killed_in_the_middle_of_a_long_statement_frees_its_lock_within_2_s(monday: Project) -> None:
    add_a_long_statement(monday)
    with ProjectProcess(monday) as process:
        await_rows(monday, IN_THE_LONG_STATEMENT)
        process.kill()
        await_no_locks(monday)
    assert_it_is_still_monday(monday)


def test_a_run_whose_session_with_the_lock_was_ended_publishes_nothing(monday: Project) -> None:
    with a_run_held_up(monday) as process:
        monday.database.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        await_rows(monday, "SELECT FROM pg_locks WHERE locktype = 'advisory'", expected=False)
        monday.keboola.faults.release()
        assert process.exit_code() == 1
    assert process.lines[-1].startswith("daily load: stopped: ")
    assert "The connection to PostgreSQL was lost" in process.output
    assert newest_run(monday)[0] == "failed"
    assert_it_is_still_monday(monday)


def test_a_role_that_is_cut_off_when_idle_keeps_its_lock(monday: Project) -> None:
    monday.database.sql(f"ALTER ROLE postgres IN DATABASE {monday.database.name} SET idle_session_timeout = '200ms'")
    with a_run_held_up(monday) as process:
        await_rows(
            monday,
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'elt pid %' AND state = 'idle'"
            " AND clock_timestamp() - state_change > '600ms'",
        )
        monday.keboola.faults.release()
        assert process.exit_code() == 0, process.output


# ---- signals --------------------------------------------------------------------------------------------------------


def assert_it_ends_at_once(process: ProjectProcess, signal_number: int, code: int) -> None:
    began = time.monotonic()
    process.send(signal_number)
    assert process.exit_code() == code, process.output
    assert time.monotonic() - began < AT_ONCE
    assert "Traceback" not in process.output


def assert_it_was_cancelled(project: Project, process: ProjectProcess, words: str) -> None:
    assert process.lines[-1].startswith(f"daily load: {words}"), process.output
    assert newest_run(project) == ("cancelled", words)
    await_no_locks(project)
    assert_it_is_still_monday(project)


@pytest.mark.parametrize(
    "signal_number, code, words",
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
        (signal.SIGHUP, 129, "stopped by SIGHUP"),
    ],
)
def test_a_signal_ends_a_run_in_the_middle_of_a_long_statement(
    monday: Project, signal_number: int, code: int, words: str
) -> None:
    add_a_long_statement(monday)
    with ProjectProcess(monday) as process:
        await_rows(monday, IN_THE_LONG_STATEMENT)
        assert_it_ends_at_once(process, signal_number, code)
        assert_it_was_cancelled(monday, process, words)


def test_a_hangup_that_was_ignored_at_the_start_as_nohup_does_ends_nothing(monday: Project) -> None:
    monday.keboola.faults.add(Fault("slice", "stall", at=0.5))
    with ProjectProcess(monday, hangup=signal.SIG_IGN) as process:
        assert monday.keboola.faults.stalled.wait(PATIENCE), process.output
        process.send(signal.SIGHUP)
        monday.keboola.faults.release()
        assert process.exit_code() == 0, process.output


@pytest.mark.parametrize("request_kind", ["verify", "export-async", "manifest", "slice"])
def test_a_signal_ends_a_run_that_waits_for_http(monday: Project, request_kind: str) -> None:
    monday.keboola.faults.add(Fault(request_kind, "stall", at=None))
    with ProjectProcess(monday) as process:
        assert monday.keboola.faults.stalled.wait(PATIENCE)
        assert_it_ends_at_once(process, signal.SIGTERM, 143)
        assert_it_was_cancelled(monday, process, "stopped by SIGTERM")


def test_a_signal_ends_a_run_in_the_middle_of_a_slice(monday: Project) -> None:
    with a_run_held_up(monday) as process:
        assert_it_ends_at_once(process, signal.SIGINT, 130)
        assert_it_was_cancelled(monday, process, "stopped by Ctrl-C")


def test_a_signal_ends_a_run_that_polls_a_job(monday: Project) -> None:
    polled = threading.Event()
    with KeboolaServer(polls=1_000_000, clock=Calendar()) as monday.keboola:
        monday.put_day("tuesday")
        monday.keboola.faults.add(Fault("job", do=polled.set))
        with ProjectProcess(monday) as process:
            assert polled.wait(PATIENCE)
            assert_it_ends_at_once(process, signal.SIGINT, 130)
            assert_it_was_cancelled(monday, process, "stopped by Ctrl-C")


def test_a_signal_ends_a_run_that_waits_for_somebodys_lock(monday: Project) -> None:
    with somebody_holding(monday, "silver.a", "ACCESS EXCLUSIVE"), ProjectProcess(monday) as process:
        await_rows(monday, WAITING_FOR_A_LOCK)
        assert_it_ends_at_once(process, signal.SIGINT, 130)
        assert newest_run(monday) == ("cancelled", "stopped by Ctrl-C")


def test_a_signal_ends_a_run_that_sweeps_litter(monday: Project) -> None:
    monday.database.sql("CREATE TABLE elt_staging.r1_c (v text)")
    with somebody_holding(monday, "elt_staging.r1_c", "ACCESS SHARE"), ProjectProcess(monday) as process:
        await_rows(monday, WAITING_FOR_A_LOCK)
        assert_it_ends_at_once(process, signal.SIGTERM, 143)
        assert_it_was_cancelled(monday, process, "stopped by SIGTERM")


@pytest.mark.parametrize("comment", ["", "COMMENT ON TABLE elt.runs IS 'of an older version';"])
def test_a_signal_ends_a_run_that_waits_for_its_number_or_for_schema_elt(monday: Project, comment: str) -> None:
    monday.database.sql(f"{comment}SELECT")
    with somebody_holding(monday, "elt.runs", "SHARE"), ProjectProcess(monday) as process:
        await_rows(monday, WAITING_FOR_A_LOCK)
        assert_it_ends_at_once(process, signal.SIGTERM, 143)
    assert process.lines[-1] == "error: stopped by SIGTERM"
    assert_it_is_still_monday(monday)


def test_a_second_signal_ends_a_run_whose_server_does_not_answer(monday: Project) -> None:
    """So nobody needs kill -9."""
    add_a_long_statement(monday)
    with ProjectProcess(monday) as process:
        await_rows(monday, IN_THE_LONG_STATEMENT)
        ((backend,),) = monday.database.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")
        os.kill(backend, signal.SIGSTOP)
        try:
            process.send(signal.SIGINT)
            process.run_on(0.5)
            assert process.is_running
            assert_it_ends_at_once(process, signal.SIGINT, 130)
            assert process.lines[-1] == "error: stopped by Ctrl-C"
        finally:
            os.kill(backend, signal.SIGCONT)
        await_no_locks(monday)
    assert_it_is_still_monday(monday)


@pytest.mark.parametrize("pauses", [(), (0.03, 0.03), (0.5,)], ids=["once", "sent by two", "again"])
def test_each_stop_of_a_query_in_duckdb_has_its_exit_code(
    monday: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: tuple[float, ...]
) -> None:
    """`again`: the database that DuckDB asks does not answer, so the run cannot end at the first signal."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monday.registry["c"]["extract"] = {"duckdb": "extract/c.sql"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        attach = f"ATTACH 'host=127.0.0.1 port={silent.getsockname()[1]} sslmode=disable' AS erp"
        endless = "SELECT count(*) AS id, 1 AS v FROM range(10000000000) AS a, range(1000000) AS b"
        again = pauses == (0.5,)
        monday.script("extract/c.sql", f"{attach} (TYPE postgres, READ_ONLY);\nFROM erp.t" if again else endless)
        with ProjectProcess(monday, "c") as process:
            if again:
                connection, _ = silent.accept()
            else:
                await_rows(monday, "SELECT FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state = 'active'")
            for pause in pauses:
                process.send(signal.SIGINT)
                process.run_on(pause)
            assert_it_ends_at_once(process, signal.SIGINT, 130)
            if again:
                connection.close()
    assert not [*tmp_path.glob("elt-duckdb-*")]
    if again:
        assert process.lines[-1] == "error: stopped by Ctrl-C"
    else:
        assert process.lines[-1].startswith("run: stopped by Ctrl-C"), process.output
        assert newest_run(monday) == ("cancelled", "stopped by Ctrl-C")
    assert_it_is_still_monday(monday)


def test_a_thread_that_is_left_in_duckdb_does_not_abort_the_process() -> None:
    busy = """
import threading
import duckdb
from lib.cli.command_line import leave

working = threading.Semaphore(0)

def work():
    connection = duckdb.connect()
    while True:
        connection.execute("SELECT 1")
        working.release()

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(100):
    working.acquire()
print("said", end="")
leave(130)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", busy], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"said", b"")


# ---- locks of other people ------------------------------------------------------------------------------------------

WAITING_FOR_A_LOCK = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'elt %'"


# ---- settings of the role -------------------------------------------------------------------------------------------

#: settings of a role that would change the result of a script, or stop it
DEFAULTS = {
    "search_path": "silver, pg_temp",
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "xmloption": "document",
    "timezone_abbreviations": "Australia",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "100ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "transaction_timeout": "200ms",
    "idle_session_timeout": "100ms",
    "session_replication_role": "replica",
    "row_security": "off",
    "check_function_bodies": "off",
    "work_mem": "64kB",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "default_table_access_method": "heap",
    "default_text_search_config": "simple",
    "temp_tablespaces": "",
}
DEPENDS_ON_SETTINGS = r"""
CREATE TABLE IF NOT EXISTS silver.c (id integer PRIMARY KEY, v text);
DROP TABLE IF EXISTS pg_temp.c_now;
CREATE TEMP TABLE c_now AS
SELECT
    id::integer AS id,
    concat_ws(
        E'\n',
        v,
        '03.02.04'::date,
        '2026-02-03 04:05'::timestamptz,
        to_timestamp(0),
        '2026-02-03 04:05 EST'::timestamptz,
        '1 day 2 hours'::interval,
        0.1::float8 + 0.2::float8,
        '\x00ff'::bytea,
        'a\nb',
        octet_length('ž'),
        (NULL::text = NULL) IS NULL,
        '{NULL}'::text[],
        'silver.c'::regclass,
        to_tsvector('the houses'),
        (SELECT count(pg_sleep(0.15)) FROM (VALUES (1), (2)) AS twice)
    ) AS v
FROM bronze.c;
SELECT * FROM elt.publish_rows('silver.c', 'c_now');
"""


def test_whatever_a_role_has_as_defaults_the_rows_are_the_same(project: Project) -> None:
    project.put_day("monday", 1)
    project.put("c", [("1", "měsíc 🌙")])
    project.script("silver/c.sql", DEPENDS_ON_SETTINGS)
    assert project.run().exit_code == 0, project.output
    expected = project.rows("silver.c")
    project.database.sql("DELETE FROM silver.c")
    administrator = Database(
        project.settings, StopSignal(), project.database.connect_args | {"dbname": "postgres"}
    ).connect("me")
    known = [name for (name,) in query(administrator, "SELECT name FROM pg_settings")]
    for name, value in DEFAULTS.items():
        if name in known:  # PostgreSQL 15 has no transaction_timeout
            execute(administrator, f"ALTER ROLE postgres IN DATABASE {project.database.name} SET {name} = '{value}'")
    administrator.close()
    with ProjectProcess(project) as process:
        assert process.exit_code() == 0, process.output
    reader = Database(project.settings, StopSignal(), project.database.connect_args).connect("reader")
    assert query(reader, "SELECT * FROM silver.c") == expected
    reader.close()


def test_an_undo_that_is_stopped_says_that_nothing_was_done(monday: Project) -> None:
    monday.put_day("tuesday")
    assert monday.run().exit_code == 0, monday.output
    waits = "SELECT FROM pg_locks WHERE relation = 'silver.a'::regclass AND NOT granted"
    with somebody_holding(monday, "silver.a", "ROW EXCLUSIVE"), ProjectProcess(monday, "undo") as process:
        await_rows(monday, waits)
        process.send(signal.SIGINT)
        assert process.exit_code() == 130, process.output
    assert "nothing was done" in process.output and "stopped by Ctrl-C" in process.output
    assert monday.day("silver.a") == "tuesday"
