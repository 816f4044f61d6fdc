"""The run lock, signals, locks of other people, and sessions that are not what they seem."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
import pytest

from lib.errors import BusyError, ConnectionLost, ScriptError, SettingsError
from lib.postgres.connection import Connection, Database, execute, query
from lib.postgres.driver_errors import translate
from lib.postgres.run_lock import release_run_lock, take_run_lock
from lib.run.runner import LockRetry
from lib.stop import StopSignal, start_thread
from project import Calendar, Project
from project_process import PATIENCE, ProjectProcess, await_no_locks, await_rows
from sandbox.faults import Fault
from sandbox.keboola_server import KeboolaServer

LONG_STATEMENT = "SELECT pg_sleep(61);"
IN_THE_LONG_STATEMENT = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
#: seconds within which a run ends that was told to
AT_ONCE = 2.0


@pytest.fixture
def monday(project: Project) -> Project:
    """A project that was loaded on monday; tuesday's rows wait in Keboola."""
    project.put_day("monday")
    assert project.run().exit_code == 0
    project.put_day("tuesday")
    return project


def assert_it_is_still_monday(project: Project) -> None:
    days = {project.day(f"{layer}.{name}") for layer in ("bronze", "silver") for name in ("a", "b", "c")}
    assert days == {"monday"}


def add_a_long_statement(project: Project, path: str = "silver/c.sql") -> None:
    script = (project.root / "sql_scripts" / path).read_text()
    project.script(path, script + LONG_STATEMENT)


def newest_run(project: Project) -> tuple:
    ((status, error),) = project.database.sql("SELECT status, error FROM elt.runs ORDER BY run_id DESC LIMIT 1")
    return status, error


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
        assert [request.kind for request in monday.keboola.requests].count("verify") == 2
        monday.keboola.faults.release()
        assert first.exit_code() == 0, first.output
    assert monday.day("silver.c") == "tuesday"


def waiting(process: ProjectProcess) -> str:
    return (
        f"SELECT FROM pg_stat_activity WHERE application_name LIKE 'elt pid {process.pid} %'"
        " AND query LIKE '%try_advisory%'"
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


def test_a_lock_is_free_the_moment_it_is_released_though_its_session_lives(project: Project) -> None:
    database = Database(project.settings, StopSignal(), project.database.connect_args)
    first, second = database.connect("first"), database.connect("second")
    take_run_lock(first)
    with pytest.raises(BusyError, match="first .PostgreSQL backend"):
        take_run_lock(second)
    release_run_lock(first)
    take_run_lock(second)
    first.close()
    second.close()


def test_another_database_of_the_server_has_a_lock_of_its_own(project: Project) -> None:
    database = Database(project.settings, StopSignal(), project.database.connect_args)
    elsewhere = Database(project.settings, StopSignal(), project.database.connect_args | {"dbname": "template1"})
    first, second = database.connect("first"), elsewhere.connect("second")
    take_run_lock(first)
    take_run_lock(second)
    first.close()
    second.close()


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
    assert "PostgreSQL went away" in process.output
    assert newest_run(monday)[0] == "failed"
    assert_it_is_still_monday(monday)


@pytest.mark.parametrize("kind", [psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError])
def test_a_lost_connection_is_known_by_whatever_error_the_driver_reports(kind: type[psycopg2.Error]) -> None:
    """Taken for a script's error it would be one job's fault."""
    found = translate(kind("server closed the connection unexpectedly"), "silver/a.sql:1", ScriptError)
    assert isinstance(found, ConnectionLost)
    assert str(found).startswith("silver/a.sql:1: server closed the connection unexpectedly\n    PostgreSQL went away;")


def test_a_run_whose_lock_was_taken_away_refuses_to_publish(monday: Project) -> None:
    """Its session lives, and the first try runs into somebody's lock: the second finds the run lock gone."""
    script = (monday.root / "sql_scripts/silver/a.sql").read_text()
    monday.script("silver/a.sql", f"{script}SELECT pg_advisory_unlock_all();")
    with somebody_holding(monday, "silver.b", "ACCESS EXCLUSIVE"):
        assert monday.run(lock_retry=LockRetry(lock_timeout=0.2, tries=2, pause=0.0)).exit_code == 1
    assert "stopped: this run no longer holds the run lock" in monday.last_line
    assert "nothing was published. Run again" in monday.last_line
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
    assert process.lines[-1].startswith(f"daily load: stopped: {words}"), process.output
    assert newest_run(project) == ("cancelled", words)
    await_no_locks(project)
    assert_it_is_still_monday(project)


@pytest.mark.parametrize(
    "signal_number, code, words",
    [(signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
def test_a_signal_ends_a_run_in_the_middle_of_a_long_statement(
    monday: Project, signal_number: int, code: int, words: str
) -> None:
    add_a_long_statement(monday)
    with ProjectProcess(monday) as process:
        await_rows(monday, IN_THE_LONG_STATEMENT)
        assert_it_ends_at_once(process, signal_number, code)
        assert_it_was_cancelled(monday, process, words)


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
    """Nobody is ever tempted to kill -9."""
    add_a_long_statement(monday)
    with ProjectProcess(monday) as process:
        await_rows(monday, IN_THE_LONG_STATEMENT)
        ((backend,),) = monday.database.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")
        os.kill(backend, signal.SIGSTOP)
        try:
            process.send(signal.SIGINT)
            process.run_on(0.5)
            assert process.is_running
            assert_it_ends_at_once(process, signal.SIGINT, -signal.SIGINT)
        finally:
            os.kill(backend, signal.SIGCONT)
        await_no_locks(monday)
    assert_it_is_still_monday(monday)


# ---- locks of somebody ----------------------------------------------------------------------------------------------

WAITING_FOR_A_LOCK = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'elt %'"


@dataclass
class Colleague:
    """Somebody who locked a relation and went to lunch."""

    connection: Connection
    pid: int

    def come_back(self) -> None:
        self.connection.rollback()


@contextmanager
def somebody_holding(project: Project, relation: str, mode: str) -> Iterator[Colleague]:
    connection = project.database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("SET application_name = 'a long lunch'")
        cursor.execute(f"LOCK TABLE {relation} IN {mode} MODE")
    yield Colleague(connection, connection.info.backend_pid)
    connection.close()


@pytest.mark.parametrize("relation, mode", [("bronze.a", "ACCESS EXCLUSIVE"), ("silver.a", "ROW EXCLUSIVE")])
def test_a_lock_held_for_too_long_fails_its_group_and_is_named(monday: Project, relation: str, mode: str) -> None:
    with somebody_holding(monday, relation, mode) as colleague:
        assert monday.run(lock_retry=LockRetry(lock_timeout=0.7, tries=2, pause=0.0)).exit_code == 1
    assert monday.output.count("trying again") == 1
    assert "1 failed: a (" in monday.last_line and "2 held back: b, both" in monday.last_line
    assert f"; backend {colleague.pid} (postgres, a long lunch, idle in transaction" in monday.last_line
    assert f"holds {relation}; to end it: SELECT pg_terminate_backend({colleague.pid});" in monday.last_line
    for table in ("bronze.a", "silver.a", "bronze.b", "silver.b"):
        assert monday.day(table) == "monday"
    assert monday.day("bronze.c") == monday.day("silver.c") == "tuesday"


@pytest.mark.parametrize("mode", ["ACCESS SHARE", "ROW SHARE"])
def test_who_only_reads_is_never_in_the_way(monday: Project, mode: str) -> None:
    with somebody_holding(monday, "bronze.a, silver.a", mode):
        assert monday.run().exit_code == 0
    assert "trying again" not in monday.output


class ColleagueComesBack(StopSignal):
    """The pause between two tries, in which a lock is released."""

    def __init__(self, colleague: Colleague) -> None:
        super().__init__()
        self.colleague = colleague
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        if seconds:
            self.colleague.come_back()
            self.pauses.append(seconds)


def test_a_lock_released_in_between_lets_the_next_try_publish_everything(monday: Project) -> None:
    with somebody_holding(monday, "silver.a", "ACCESS EXCLUSIVE") as colleague:
        stop = ColleagueComesBack(colleague)
        assert monday.run(stop=stop, lock_retry=LockRetry(lock_timeout=0.2, tries=2, pause=7.0)).exit_code == 0
    assert stop.pauses == [7.0]
    assert "trying again in 7 s" in monday.output
    assert monday.day("silver.a") == monday.day("silver.b") == "tuesday"
    assert monday.database.sql("SELECT status, count(*) FROM elt.job_runs WHERE run_id = 2 GROUP BY status") == [
        ("published", 4)
    ]


def test_a_colleague_may_create_an_index_concurrently_meanwhile(monday: Project) -> None:
    """Without a lock taken first, our second statement would wait for his index, and his index for our first."""
    script = (monday.root / "sql_scripts/silver/a.sql").read_text()
    monday.script("silver/a.sql", f"UPDATE silver.a SET v = v; SELECT pg_advisory_xact_lock(61);{script}")
    gate = monday.database.connect()
    gate.cursor().execute("SELECT pg_advisory_lock(61)")
    waits = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%' AND pid <> pg_backend_pid()"
    )
    load: Future = start_thread(lambda: monday.run(lock_retry=LockRetry(lock_timeout=30, tries=1)), "load")
    await_rows(monday, waits.format("advisory_xact_lock"))
    index: Future = start_thread(lambda: monday.database.sql("CREATE INDEX CONCURRENTLY his ON silver.a (v)"), "index")
    await_rows(monday, waits.format("CREATE INDEX"))
    gate.close()
    assert load.result(PATIENCE).exit_code == 0, monday.output
    index.result(PATIENCE)
    assert monday.database.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'silver.his'::regclass") == [(True,)]
    assert monday.day("silver.a") == "tuesday"


# ---- sessions that are not what they seem ---------------------------------------------------------------------------


class Pooler:
    """Passes one client on to PostgreSQL and gives it a process id of its own, as a pooler does: libpq never learns
    which backend serves it (PostgreSQL: Message Formats, BackendKeyData)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._serving = start_thread(self._serve, "pooler")

    def __enter__(self) -> Pooler:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._serving.result(PATIENCE)
        self._listening.close()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            upward = start_thread(lambda: self._pass_on(client, server), "to the server")
            kind = b""
            while kind != b"Z":
                kind, length = struct.unpack("!cI", server.recv(5, socket.MSG_WAITALL))
                body = server.recv(length - 4, socket.MSG_WAITALL)
                if kind == b"K":
                    body = struct.pack("!I", 1) + body[4:]
                client.sendall(struct.pack("!cI", kind, length) + body)
            self._pass_on(server, client)
            upward.result(PATIENCE)

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_pooler_is_refused(project: Project) -> None:
    direct = project.database.connect_args
    with Pooler(f"{direct['host']}/.s.PGSQL.{direct['port']}") as pooler:
        through = direct | {
            "host": "127.0.0.1",
            "port": str(pooler.port),
            "sslmode": "disable",
            "gssencmode": "disable",
        }
        with pytest.raises(SettingsError, match="a connection pooler .* connect to PostgreSQL itself"):
            Database(project.settings, StopSignal(), through).connect("a run")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(project: Project, encoding: str) -> None:
    name = f"{project.database.name}_{encoding.lower()}"
    project.database.sql(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    )
    database = Database(project.settings, StopSignal(), project.database.connect_args | {"dbname": name})
    with pytest.raises(SettingsError, match=f"{name} has encoding {encoding}; .*CREATE DATABASE .. ENCODING 'UTF8'"):
        database.connect("a run")
    project.database.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_login_trigger_with_a_temporary_table_is_no_reason_to_fail(project: Project) -> None:
    project.database.sql("""
        CREATE FUNCTION public.greet() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            CREATE TEMP TABLE greeting AS SELECT 'hello' AS text;
        END $$;
        CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION public.greet();
    """)
    connection = Database(project.settings, StopSignal(), project.database.connect_args).connect("a run")
    assert query(connection, "SELECT text FROM greeting") == [("hello",)]
    connection.close()


#: settings of a role that would change what a script means, or end it
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
    for name, value in DEFAULTS.items():
        execute(administrator, f"ALTER ROLE postgres IN DATABASE {project.database.name} SET {name} = '{value}'")
    administrator.close()
    with ProjectProcess(project) as process:
        assert process.exit_code() == 0, process.output
    reader = Database(project.settings, StopSignal(), project.database.connect_args).connect("reader")
    assert query(reader, "SELECT * FROM silver.c") == expected
    reader.close()
