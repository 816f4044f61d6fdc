"""The run lock, locks of other people, poolers, and databases that cannot be used."""

from __future__ import annotations

import re
import socket
import struct
from concurrent.futures import Future
from contextlib import suppress

import psycopg2
import pytest

from lib.config.settings import Settings
from lib.errors import BusyError, CredentialError, LockTimeout, SettingsError
from lib.postgres.blockers import CONFLICTING, BlockerWatch, Wait
from lib.postgres.connection import Connection, Database, query
from lib.postgres.run_lock import release_run_lock, take_run_lock
from lib.run.runner import LockRetry
from lib.stop import StopSignal, start_thread
from tests.support.colleague import Colleague, somebody_holding
from tests.support.databases import EmptyDatabase, sql
from tests.support.project import GOLD, Project, assert_it_is_still_monday, newest_run
from tests.support.project_process import PATIENCE, await_rows


def changed_gold() -> str:
    return GOLD.replace("a and b side by side.", "Other words.")


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


@pytest.mark.parametrize("table", ["elt.runs", "elt.definitions"])
def test_a_lock_on_the_history_ends_the_run_and_is_named(monday: Project, table: str) -> None:
    with somebody_holding(monday, table, "ACCESS EXCLUSIVE") as colleague:
        try:
            error = monday.run(patience=0.3).error
        except LockTimeout as before_the_run_has_a_number:
            error = before_the_run_has_a_number
    assert f"{colleague.pid} (postgres, a long lunch" in str(error) and f"holds {table}; to end it" in str(error)
    assert_it_is_still_monday(monday)
    assert monday.run().exit_code == 0


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


def test_a_prepared_transaction_in_the_way_is_named_with_the_statement_that_ends_it(monday: Project) -> None:
    """No session holds its locks, and one that prepares during our wait is not the one to end. Another prepared
    transaction, whose lock does not conflict, is not in the way."""
    harmless, colleague = monday.database.connect(), monday.database.connect()
    sql(harmless, "BEGIN; LOCK TABLE silver.a IN ACCESS SHARE MODE; PREPARE TRANSACTION 'harmless'")
    sql(colleague, "BEGIN; LOCK TABLE silver.a IN ROW EXCLUSIVE MODE")
    load: Future = start_thread(lambda: monday.run(lock_retry=LockRetry(lock_timeout=1.5, tries=1)), "load")
    await_rows(monday, "SELECT FROM pg_locks WHERE NOT granted AND relation = 'silver.a'::regclass")
    sql(colleague, "PREPARE TRANSACTION 'it''s lost'")
    try:
        assert load.result(PATIENCE).exit_code == 1
        assert "prepared transaction 'it''s lost' of postgres, " in monday.last_line
        assert "s ago, holds silver.a; to end it: ROLLBACK PREPARED 'it''s lost';" in monday.last_line
        assert "pg_terminate_backend" not in monday.last_line and "harmless" not in monday.last_line
    finally:
        sql(colleague, "ROLLBACK PREPARED 'it''s lost'")
        sql(colleague, "ROLLBACK PREPARED 'harmless'")


class ColleaguesTakeTurns(ColleagueComesBack):
    """In the pause between two tries, another colleague takes the lock."""

    def __init__(self, first: Colleague, second: Connection) -> None:
        super().__init__(first)
        self.second = second

    def pause(self, seconds: float) -> None:
        super().pause(seconds)
        sql(self.second, "BEGIN; LOCK TABLE silver.a IN ROW EXCLUSIVE MODE")


def test_who_held_a_lock_in_an_earlier_try_is_not_named_in_a_later_one(monday: Project) -> None:
    second = monday.database.connect()
    with somebody_holding(monday, "silver.a", "ROW EXCLUSIVE") as first:
        stop = ColleaguesTakeTurns(first, second)
        assert monday.run(stop=stop, lock_retry=LockRetry(lock_timeout=0.5, tries=2, pause=1.0)).exit_code == 1
    assert f"pg_terminate_backend({second.info.backend_pid});" in monday.last_line
    assert f"{first.pid}" not in monday.last_line


@pytest.mark.parametrize("change", ["LOCK TABLE silver.a IN SHARE MODE", "DELETE FROM silver.a"])
def test_who_holds_a_lock_is_asked_when_the_message_is_written(monday: Project, change: str) -> None:
    recorder, waiter, holder = (monday.database.connect() for _ in range(3))
    sql(holder, f"BEGIN; {change}")
    with BlockerWatch(recorder, waiter.info.backend_pid, every=0.01) as watch:
        assert watch.in_the_way() == ""
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            sql(waiter, "SET lock_timeout = '300ms'; UPDATE silver.a SET v = 'x'")
        assert f"pg_terminate_backend({holder.info.backend_pid});" in watch.in_the_way()
        holder.close()
        await_rows(monday, f"SELECT FROM pg_stat_activity WHERE pid = {holder.info.backend_pid}", expected=False)
        # the first answers may come from a look that began before the session ended
        assert any(watch.in_the_way() == "the lock has been released meanwhile" for _ in range(50))
        watch.begin()
        assert watch.in_the_way() == ""


@pytest.mark.parametrize("wanted", [f"{mode}Lock" for mode in CONFLICTING])
def test_lock_modes_conflict_as_in_postgresql(module_database: EmptyDatabase, wanted: str) -> None:
    first, second = module_database.connect(), module_database.connect()
    sql(first, "CREATE TABLE IF NOT EXISTS t ()")
    in_sql = {f"{mode}Lock": re.sub("(?<=.)([A-Z])", r" \1", mode).upper() for mode in CONFLICTING}
    found = set()
    for held, text in in_sql.items():
        sql(first, f"BEGIN; LOCK TABLE t IN {text} MODE")
        with suppress(psycopg2.errors.LockNotAvailable):
            found.add(held)
            sql(second, f"BEGIN; LOCK TABLE t IN {in_sql[wanted]} MODE NOWAIT")
            found.remove(held)
        sql(second, "ROLLBACK")
        sql(first, "ROLLBACK")
    assert found == set(Wait("", wanted, None).conflicting)


# ---- readers of a view that changes ---------------------------------------------------------------------------------


class ReadersGoOn(StopSignal):
    """Between two tries to lock a view, a reader reads it; after the third try, the colleague is gone."""

    def __init__(self, colleague: Colleague, reader: Connection) -> None:
        super().__init__()
        self.colleague = colleague
        self.reader = reader
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        if not seconds:
            return  # only asks whether to stop
        self.pauses.append(seconds)
        assert sql(self.reader, "SET lock_timeout = '2s'; SELECT a FROM gold.both")
        if len(self.pauses) == 3:
            self.colleague.come_back()


def test_a_changed_view_asks_for_its_lock_in_short_tries_between_which_readers_go_on(monday: Project) -> None:
    monday.script("gold/both.sql", changed_gold())
    with somebody_holding(monday, "gold.both", "ACCESS SHARE") as colleague:
        stop = ReadersGoOn(colleague, monday.database.connect())
        assert monday.run(stop=stop, lock_retry=LockRetry(tries=1, definition_timeout=0.1)).exit_code == 0
    assert stop.pauses == [0.5, 0.5, 0.5]
    assert "trying again" not in monday.output
    assert monday.output.count("gold/both.sql  ") == 1
    assert monday.database.sql("SELECT obj_description('gold.both'::regclass)") == [("Other words.",)]


def test_a_reader_in_the_way_of_a_changed_view_is_named_after_all_tries(monday: Project) -> None:
    monday.script("gold/both.sql", changed_gold())
    with somebody_holding(monday, "gold.both", "ACCESS SHARE") as colleague:
        assert monday.run().exit_code == 1
    assert f"{colleague.pid} (postgres, a long lunch" in monday.last_line
    assert monday.day("silver.a") == "monday"


def test_readers_that_wait_behind_our_request_for_a_lock_are_counted(monday: Project) -> None:
    monday.script("gold/both.sql", changed_gold())
    with somebody_holding(monday, "gold.both", "ACCESS SHARE") as colleague:
        load: Future = start_thread(lambda: monday.run(lock_retry=LockRetry(definition_timeout=60)), "load")
        await_rows(monday, "SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
        reader: Future = start_thread(lambda: monday.database.sql("SELECT FROM gold.both"), "reader")
        # the watch has looked after the reader began to wait
        await_rows(
            monday,
            "SELECT FROM pg_locks JOIN pg_stat_activity AS watch ON watch.query_start > waitstart"
            " WHERE mode = 'AccessShareLock' AND NOT granted AND query LIKE '%waitstart%'"
            " AND watch.pid <> pg_backend_pid() AND state = 'idle'",
        )
        colleague.come_back()
        assert load.result(PATIENCE).exit_code == 0
        reader.result(PATIENCE)
    assert re.search(
        r'gold."both": gold/both.sql locked it for 0\.\d s, 1 reader waited, up to \d\.\d s', monday.output
    )


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
    if project.database.server.version < 17:
        return  # there are no such triggers
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
