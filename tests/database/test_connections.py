"""Connections that PostgreSQL refuses: whose fault it is, what to do, and the exit code."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest

from lib.cli.console import Console
from lib.config.settings import Postgres, Settings
from lib.errors import ConnectionLost, CredentialError, DatabaseError, EltError, SettingsError, TooManyConnections
from lib.postgres.connection import Connection, Database
from lib.postgres.embedded.server import Server
from lib.stop import start_thread
from sandbox.faults import Fault
from tests.support.databases import EmptyDatabase, sql_once
from tests.support.keyrings import file_with
from tests.support.postgres_proxy import IdleProxy, PostgresProxy
from tests.support.project import Project
from tests.support.project_process import PATIENCE
from tests.support.roles import Role

RIGHT, WRONG = "right hunter2", "wrong hunter2"


@pytest.fixture(scope="module")
def guarded(servers: Mapping[int, Server]) -> Iterator[dict[str, str]]:
    """How to connect to a server that asks some users for a password; it trusts all others."""
    address = servers[18].connect_args()
    sql_once(address, f"CREATE ROLE asked LOGIN PASSWORD '{RIGHT}'; CREATE ROLE other LOGIN; CREATE ROLE closed")
    hba = Path(sql_once(address, "SHOW hba_file")[0][0])
    before = hba.read_text()
    lines = "local all asked scram-sha-256\nlocal all other peer\nlocal all barred reject\n"
    hba.write_text(lines + before)
    sql_once(address, "SELECT pg_reload_conf()")
    for _attempt in range(2000):  # until the server has read it
        try:
            psycopg2.connect(**address | {"user": "asked"}).close()
        except psycopg2.OperationalError:
            break
    yield address
    hba.write_text(before)
    sql_once(address, "SELECT pg_reload_conf(); DROP ROLE asked, other, closed")


def refusal(root: Path, address: Mapping[str, str], **keywords: str) -> EltError:
    """What a connection as the settings say is refused with."""
    named = {**address, "user": "asked", **keywords}
    settings = Settings(root=root, postgres=Postgres(**named | {"port": int(named["port"])}))
    with pytest.raises(EltError) as caught:
        Database(settings).connect("a run")
    assert "hunter2" not in str(caught.value) and str(caught.value).startswith("cannot connect to PostgreSQL: ")
    return caught.value


def variable(root: Path) -> tuple[dict[str, str], str]:
    return {"POSTGRES_PASSWORD": WRONG, "PGPASSWORD": RIGHT}, "came from POSTGRES_PASSWORD: correct it there, because"


def named_file(root: Path) -> tuple[dict[str, str], str]:
    path = file_with(root / "password", WRONG)
    return {"POSTGRES_PASSWORD_FILE": path}, f"came from POSTGRES_PASSWORD_FILE ({path}): correct it there, because"


def own_file(root: Path) -> tuple[dict[str, str], str]:
    (root / ".elt/secrets").mkdir(parents=True)
    path = file_with(root / ".elt/secrets/postgres_password.asked", WRONG)
    return {}, f"came from {path}: to replace it, type `python main.py credentials set postgres`"


def libpqs_variable(root: Path) -> tuple[dict[str, str], str]:
    return {"PGPASSWORD": WRONG}, "came from PGPASSWORD: correct it there, or type `python main.py credentials set"


def pgpass(root: Path) -> tuple[dict[str, str], str]:
    path = file_with(root / "pgpass", f"*:*:*:*:{WRONG}\n")
    os.chmod(path, 0o600)
    return {
        "PGPASSFILE": path
    }, f"came from {path}: correct it there, or type `python main.py credentials set postgres`"


@pytest.mark.parametrize("place", [variable, named_file, own_file, libpqs_variable, pgpass])
def test_a_wrong_password_names_its_place_and_what_to_do_there(
    guarded: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place
) -> None:
    environ, words = place(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    error = refusal(tmp_path, guarded)
    assert isinstance(error, CredentialError) and error.exit_code == 2
    assert 'password authentication failed for user "asked"' in str(error) and words in str(error)


def test_a_password_that_is_needed_and_nowhere_lists_each_place_tried(guarded: dict[str, str], tmp_path: Path) -> None:
    error = refusal(tmp_path, guarded)
    assert isinstance(error, CredentialError)
    for text in (
        "asks for a password and none was found",
        "    POSTGRES_PASSWORD: not set\n",
        "    POSTGRES_PASSWORD_FILE: not set\n",
        f"    {tmp_path}/.elt/secrets/postgres_password.asked: no such file\n",
        "    keyring ('POSTGRES', 'asked'): no backend on this machine\n",
        "    libpq: nothing in PGPASSWORD or .pgpass\n",
        "`python main.py credentials set postgres`",
    ):
        assert text in str(error)


@pytest.mark.parametrize(
    "keywords, todo",
    [
        ({"user": "nobody_here"}, "Correct user under [postgres]"),
        ({"user": "closed"}, "Correct user under [postgres]"),
        ({"user": "other"}, "pg_hba.conf asks for no password: user in elt_settings.toml must be"),
        ({"user": "barred"}, "by a line in pg_hba.conf"),
        ({"user": "postgres", "dbname": "nowhere"}, "Correct dbname under [postgres]"),
    ],
)
def test_wrong_settings_are_told_from_a_server_that_is_down(
    guarded: dict[str, str], tmp_path: Path, keywords: dict[str, str], todo: str
) -> None:
    error = refusal(tmp_path, guarded, **keywords)
    assert isinstance(error, SettingsError) and error.exit_code == 2
    assert todo in str(error) and "Is the server up" not in str(error)


def test_a_server_without_tls_names_the_setting_that_asks_for_it(database: EmptyDatabase, tmp_path: Path) -> None:
    with PostgresProxy(database, "before") as on_tcp:
        error = refusal(tmp_path, on_tcp.connect_args, sslmode="require")
    assert isinstance(error, SettingsError) and "See sslmode under [postgres]" in str(error)


# ---- too many connections -------------------------------------------------------------------------------------------


def test_a_database_or_a_role_without_a_free_slot_says_so(database: EmptyDatabase, elt: Role, tmp_path: Path) -> None:
    for limited in f"DATABASE {database.name}", f"ROLE {elt.name}":
        database.sql(f"ALTER {limited} CONNECTION LIMIT 0")
        error = refusal(tmp_path, elt.connect_args, user=elt.name)
        assert isinstance(error, TooManyConnections) and error.exit_code == 1
        assert f'too many connections for {limited.split()[0].lower()} "{limited.split()[1]}"' in str(error)
        assert "The server is up, but gives no more connections" in str(error) and "CONNECTION LIMIT" in str(error)
        database.sql(f"ALTER {limited} CONNECTION LIMIT -1")


def test_copying_goes_on_with_the_connections_that_the_server_gives(
    project: Project, elt: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def line(_console: Console, text: str) -> None:
        if "no more connections" in text:
            told.append(text)
            project.keboola.faults.release()

    monkeypatch.setattr(Console, "line", line)
    project.keboola.faults.add(Fault("slice", "stall", at=None, nth=None))
    project.settings = Settings(**vars(project.settings) | {"parallel": 8})
    project.connect_args = elt.connect_args
    project.put_day("monday")
    project.database.sql(f"ALTER ROLE {elt.name} CONNECTION LIMIT 4")
    assert project.run().exit_code == 0, project.output
    assert told == ["PostgreSQL gives no more connections: copying goes on with 2 of 8"]
    assert {project.day(f"silver.{name}") for name in ("a", "b", "c")} == {"monday"}


def test_a_run_without_one_connection_to_copy_ends_with_the_reason(project: Project, elt: Role) -> None:
    project.connect_args = elt.connect_args
    project.put_day("monday")
    project.database.sql(f"ALTER ROLE {elt.name} CONNECTION LIMIT 2")
    assert project.run().exit_code == 1
    assert "too many connections for role" in project.last_line
    assert "A run needs at least 3" in project.output and "goes on" not in project.output


def test_there_are_no_more_connections_than_slices(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, connect = [], Database.connect

    def counted(database: Database, purpose: str, **how: bool) -> Connection:
        opened.append(purpose)
        return connect(database, purpose, **how)

    monkeypatch.setattr(Database, "connect", counted)
    project.settings = Settings(**vars(project.settings) | {"parallel": 8})
    project.put_day("monday")
    assert project.run("c").exit_code == 0, project.output
    assert len([purpose for purpose in opened if purpose.endswith("copy")]) == 4  # the sandbox makes 4 slices


# ---- a proxy that cuts idle connections -----------------------------------------------------------------------------


def test_connections_that_wait_for_an_export_are_not_idle(monday: Project) -> None:
    """Another connection through the same proxy, which says nothing, is cut twice during the wait."""
    with IdleProxy(monday.database, 1.0) as proxy:

        def wait() -> None:
            proxy.await_cut()
            proxy.await_cut()

        monday.connect_args = proxy.connect_args
        monday.keboola.faults.add(Fault("manifest", do=wait, nth=3))
        monday.script("silver/c.sql", "SELECT 1 / 0;")
        monday.run(keep_alive=0.1)
    assert "lost" not in monday.output and "unexpectedly" not in monday.output, monday.output
    assert monday.day("silver.a") == "tuesday"
    failed = "SELECT job FROM elt.job_runs WHERE run_id = 2 AND status = 'failed'"
    assert monday.database.sql(failed) == [("c",)], monday.output


# ---- a pooler in between --------------------------------------------------------------------------------------------


class Bouncer:
    """Refuses a client with these words, as PgBouncer does: at once, or when it sends its first statement."""

    def __init__(self, words: str, *, later: bool = False) -> None:
        self._error = _message(b"E", b"SFATAL\0C08P01\0M" + words.encode() + b"\0\0")
        self._later = later
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = {"host": "127.0.0.1", "port": str(self._listening.getsockname()[1]), "dbname": "x"}
        self._serving = start_thread(self._serve, "bouncer")

    def __enter__(self) -> Bouncer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._serving.result(PATIENCE)
        self._listening.close()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        with client:
            client.recv(65536)
            if self._later:
                known = [b"client_encoding\0UTF8\0", b"server_version\x0018.0\0", b"DateStyle\0ISO, MDY\0"]
                client.sendall(_message(b"R", bytes(4)) + b"".join(_message(b"S", each) for each in known))
                client.sendall(_message(b"K", bytes(8)) + _message(b"Z", b"I"))
                client.recv(65536)
            client.sendall(self._error)


def _message(kind: bytes, body: bytes) -> bytes:
    return struct.pack("!cI", kind, len(body) + 4) + body


@pytest.mark.parametrize(
    "words",
    [
        "unsupported startup parameter: options",
        "no such database: x",
        "no more connections allowed (max_client_conn)",
        "server login has been failing, cached error: password authentication failed (server_login_retry)",
        "pgbouncer cannot connect to server",
        "query_wait_timeout",
    ],
)
def test_the_words_of_a_pooler_are_known_and_it_is_named(tmp_path: Path, words: str) -> None:
    with Bouncer(words) as bouncer:
        error = refusal(tmp_path, bouncer.address, sslmode="disable")
    assert isinstance(error, SettingsError) and words in str(error)
    assert "the answer of a pooler such as PgBouncer: connect to PostgreSQL itself" in str(error)


def test_whoever_hangs_up_at_the_first_statement_may_be_a_pooler(tmp_path: Path) -> None:
    with Bouncer("query_wait_timeout", later=True) as bouncer:
        database = Database(Settings(root=tmp_path), keywords=bouncer.address | {"sslmode": "disable"})
        with pytest.raises(ConnectionLost, match="the first statements .*\n.*PgBouncer is in between: connect to Post"):
            database.connect("a run")


def test_a_refusal_in_another_language_is_not_taken_for_a_server_that_is_down(tmp_path: Path) -> None:
    with Bouncer("Passwort-Authentifizierung für Benutzer »asked« fehlgeschlagen") as bouncer:
        error = refusal(tmp_path, bouncer.address, sslmode="disable")
    assert error.exit_code == 1 and "The server answered, so host and port are right" in str(error)
    assert "To set the password, type `python main.py credentials set postgres`" in str(error)


@pytest.mark.parametrize(
    "words, kind",
    [
        ("sorry, too many clients already", TooManyConnections),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", TooManyConnections),
        ("remaining connection slots are reserved for non-replication superuser connections", TooManyConnections),
        ('no pg_hba.conf entry for host "10.0.0.1", user "asked", database "x", no encryption', SettingsError),
        ("the database system is starting up", DatabaseError),
    ],
)
def test_refusals_that_a_whole_server_gives_have_their_own_words(
    tmp_path: Path, words: str, kind: type[EltError]
) -> None:
    with Bouncer(words) as server:
        error = refusal(tmp_path, server.address, sslmode="disable")
    assert type(error) is kind and "Is the server up" not in str(error)
