"""Real PostgreSQL servers for the tests: the wheel's 16 and 18, started on first use, removed afterwards.

Where Debian's PostgreSQL 15 is installed, tests on a database exist for 15, too, with the marker postgresql_15.

A helper process removes them, because it notices every end of pytest, also by kill -9.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from lib.postgres.embedded.package import INSTALLS
from lib.postgres.embedded.server import Server
from tests.support import ROOT

REMOVE_AFTERWARDS = """
import shutil, sys
from pathlib import Path
from lib.postgres.embedded.server import remove
sys.stdin.read()
for made in list(Path(sys.argv[1]).rglob("server")):
    remove(made.parent)
shutil.rmtree(sys.argv[1])
"""


#: Debian's package postgresql-15. Joined to the wheel's folder, an absolute path is taken as it is.
DEBIAN_15 = Path("/usr/lib/postgresql/15")
WHEEL = sorted(INSTALLS)
if (DEBIAN_15 / "bin" / "postgres").exists():
    INSTALLS[15] = str(DEBIAN_15)


def on(*versions: int) -> list:
    """These versions for `params` of a fixture, and 15 with its marker where it is installed."""
    return [*versions, *(pytest.param(15, marks=pytest.mark.postgresql_15) for _ in range(15 in INSTALLS))]


class Servers(Mapping[int, Server]):
    """One server per major version, started on first use, because a start takes a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[int, Server] = {}

    def __getitem__(self, version: int) -> Server:
        if version not in self._started:
            settings = {"shared_buffers": "64MB", "max_wal_size": "1GB", "max_connections": "100"}
            settings["max_prepared_transactions"] = "4"
            self._started[version] = Server.start(self._folder / str(version), version, fsync=False, settings=settings)
        return self._started[version]

    def __iter__(self) -> Iterator[int]:
        return iter(WHEEL)

    def __len__(self) -> int:
        return len(WHEEL)


def sql(connection: Connection, text: str, *args: object) -> list[tuple]:
    """Run statements and return the rows of the last one, if any."""
    with connection.cursor() as cursor:
        cursor.execute(text, args or None)
        return [] if cursor.description is None else cursor.fetchall()


def connected(connect_args: Mapping[str, str]) -> Connection:
    """A new connection in autocommit."""
    opened = psycopg2.connect(**connect_args)
    opened.autocommit = True
    return opened


def sql_once(connect_args: Mapping[str, str], text: str, *args: object) -> list[tuple]:
    """The same on a new connection."""
    with closing(connected(connect_args)) as opened:
        return sql(opened, text, *args)


class EmptyDatabase:
    """An empty database for one test."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.connect_args = server.connect_args(name)
        self._opened: list[Connection] = []
        self._reader: Connection | None = None

    def connect(self) -> Connection:
        """A new connection in autocommit; closed after the test at the latest."""
        opened = connected(self.connect_args)
        self._opened.append(opened)
        return opened

    def sql(self, text: str, *args: object) -> list[tuple]:
        """Run statements and return the rows of the last one, if any.

        On a new connection, whose end tells the counters of changed rows at once. A query that changes nothing runs on
        one that is kept, because a new one takes longer than most queries.
        """
        if not text.startswith("SELECT ") or re.search(r"\bpg_(?!get_|stats?\b)|\belt\.\w+\(", text):
            return sql_once(self.connect_args, text, *args)
        if self._reader is not None:
            try:
                return sql(self._reader, text, *args)
            except psycopg2.Error as error:
                if error.pgcode and not self._reader.closed:
                    raise
        # the first one, or one after a test ended them all
        self._reader = self.connect()
        return sql(self._reader, text, *args)

    def close(self) -> None:
        """Close all connections."""
        for opened in self._opened:
            opened.close()


def _memory() -> str | None:
    """Shared memory, if it has room: creating a server takes 2.0 s there instead of 4.2 s, copying one 0.2 s instead of
    1.4 s. None: the usual place for temporary files."""
    try:
        found = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return None
    has_room = found.f_bavail * found.f_frsize >= 4 << 30
    usable = os.access("/dev/shm", os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return "/dev/shm" if has_room and usable else None


@pytest.fixture(scope="session")
def server_folders() -> Iterator[Path]:
    """A folder for servers. They end with pytest, even if pytest is killed."""
    folder = tempfile.mkdtemp(prefix="elt-tests-", dir=_memory())
    os.chmod(folder, 0o711)  # as root, servers run as another user, who needs access
    command = [sys.executable, "-c", REMOVE_AFTERWARDS, folder]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as remover:
        yield Path(folder).resolve()
        remover.stdin.close()
        assert remover.wait() == 0


@pytest.fixture(scope="session")
def servers(server_folders: Path) -> Mapping[int, Server]:
    """The servers by major version, 16 and 18, without fsync."""
    return Servers(server_folders)


_numbers = count(1)


@contextmanager
def fresh_database(server: Server, template: str = "template0") -> Iterator[EmptyDatabase]:
    """A database on this server, empty or copied from another one; dropped afterwards."""
    name = f"test_{next(_numbers)}"
    administrator = EmptyDatabase(server, "postgres")
    # file_copy: copies 60 files instead of writing 1000 pages to WAL
    administrator.sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    database = EmptyDatabase(server, name)
    yield database
    database.close()
    administrator.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session", params=on(18), ids=lambda version: f"postgresql_{version}")
def main_server(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Server:
    """The server of every test that does not compare versions."""
    return servers[request.param]


@pytest.fixture
def database(main_server: Server) -> Iterator[EmptyDatabase]:
    """An empty database."""
    with fresh_database(main_server) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def module_database(main_server: Server) -> Iterator[EmptyDatabase]:
    """A database for all tests of a module, because creating one takes longer than most tests."""
    with fresh_database(main_server) as fresh:
        yield fresh


@pytest.fixture(params=on(*WHEEL), ids=lambda version: f"postgresql_{version}")
def database_on_each(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Iterator[EmptyDatabase]:
    """An empty database, once on PostgreSQL 16 and once on 18."""
    with fresh_database(servers[request.param]) as fresh:
        yield fresh
