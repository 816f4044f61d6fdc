"""The run lock, locks of other people, poolers, and databases that cannot be used."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import Future

import pytest

from lib.config.settings import Settings
from lib.errors import BusyError, CredentialError, SettingsError
from lib.postgres.connection import Database, query
from lib.postgres.run_lock import release_run_lock, take_run_lock
from lib.run.runner import LockRetry
from lib.stop import StopSignal, start_thread
from tests.support.colleague import Colleague, somebody_holding
from tests.support.databases import sql
from tests.support.project import Project, assert_it_is_still_monday, newest_run
from tests.support.project_process import PATIENCE, await_rows

# ---- one run at a time ----------------------------------------------------------------------------------------------


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


def test_a_run_whose_lock_was_taken_away_refuses_to_publish(monday: Project) -> None:
    """Its session is alive. The first try meets another lock; the second finds that the run lock is gone."""
    script = (monday.root / "sql_scripts/silver/a.sql").read_text()
    monday.script("silver/a.sql", f"{script}SELECT pg_advisory_unlock_all();")
    with somebody_holding(monday, "silver.b", "ACCESS EXCLUSIVE"):
        assert monday.run(lock_retry=LockRetry(lock_timeout=0.2, tries=2, pause=0.0)).exit_code == 1
    assert "stopped: this run no longer holds the run lock" in monday.last_line
    assert "nothing was published. Run again" in monday.last_line
    assert newest_run(monday)[0] == "failed"
    assert_it_is_still_monday(monday)


# ---- locks of other people ------------------------------------------------------------------------------------------


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
    """Releases a lock in the pause between two tries."""

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
    """Without the lock at the beginning there would be a deadlock.

    Our second statement would wait for his index, and his index for our first statement.
    """
    script = (monday.root / "sql_scripts/silver/a.sql").read_text()
    monday.script("silver/a.sql", f"UPDATE silver.a SET v = v; SELECT pg_advisory_xact_lock(61);{script}")
    gate = monday.database.connect()
    sql(gate, "SELECT pg_advisory_lock(61)")
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


# ---- poolers and unusual databases ----------------------------------------------------------------------------------


class Pooler:
    """Passes one client on to PostgreSQL with a made-up process id, as a pooler does. So libpq does not know which
    backend serves it (PostgreSQL: Message Formats, BackendKeyData)."""

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
        with pytest.raises(SettingsError, match="a pooler such as PgBouncer: connect to PostgreSQL itself"):
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


# ---- secrets, before the lock ---------------------------------------------------------------------------------------


def test_a_missing_token_is_found_before_the_lock_and_before_anything_is_written(project: Project) -> None:
    project.put_day("monday")
    without = Settings(**vars(project.settings) | {"keboola_token": None})
    project.settings = without
    holder = Database(without, StopSignal(), project.database.connect_args).connect("another run")
    take_run_lock(holder)
    with pytest.raises(CredentialError, match="there is no Keboola token"):
        project.run()
    assert project.database.sql("SELECT to_regnamespace('elt')") == [(None,)]
    holder.close()


def test_a_run_that_loads_nothing_needs_no_token(project: Project) -> None:
    project.registry = {"seven": {"transform": ["silver/seven.sql"]}}
    project.script("silver/seven.sql", "CREATE TABLE IF NOT EXISTS silver.seven (n int);")
    project.settings = Settings(root=project.root)
    assert project.run().exit_code == 0, project.output
