"""Real PostgreSQL servers for the tests: the wheel's 16 and 18, started when first asked for, gone afterwards.

A helper process removes them, because it sees the end of pytest however pytest ends, a kill -9 included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from lib.postgres.embedded.package import INSTALLS
from lib.postgres.embedded.server import Server

# what the developer has set for his own work is no business of the tests
for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
    del os.environ[name]
# nor is his keyring; asking it costs every process of a test 0.2 s
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

pytest_plugins = ("project", "checkout")

REMOVE_AFTERWARDS = """
import shutil, sys
from pathlib import Path
from lib.postgres.embedded.server import remove
sys.stdin.read()
for made in list(Path(sys.argv[1]).rglob("server")):
    remove(made.parent)
shutil.rmtree(sys.argv[1])
"""


class Servers(Mapping[int, Server]):
    """One server per major version; starting it costs a second, so only for who asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[int, Server] = {}

    def __getitem__(self, version: int) -> Server:
        if version not in self._started:
            settings = {"shared_buffers": "64MB", "max_wal_size": "1GB", "max_connections": "100"}
            self._started[version] = Server.start(self._folder / str(version), version, fsync=False, settings=settings)
        return self._started[version]

    def __iter__(self) -> Iterator[int]:
        return iter(INSTALLS)

    def __len__(self) -> int:
        return len(INSTALLS)


class Database:
    """An empty database of one test."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.connect_args = server.connect_args(name)
        self._opened: list[Connection] = []

    def connect(self) -> Connection:
        """A new connection in autocommit; closed after the test at the latest."""
        opened = psycopg2.connect(**self.connect_args)
        opened.autocommit = True
        self._opened.append(opened)
        return opened

    def sql(self, text: str, *args: object) -> list[tuple]:
        """Run one statement on a connection of its own; the rows, or none."""
        opened = psycopg2.connect(**self.connect_args)
        try:
            opened.autocommit = True
            with opened.cursor() as cursor:
                cursor.execute(text, args or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            opened.close()

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


def _memory() -> str | None:
    """Shared memory where it has room: a server is made there in 2.0 s and not in 4.2, a fresh one copied in 0.2 and
    not in 1.4. None: the usual place for temporary files."""
    try:
        found = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return None
    has_room = found.f_bavail * found.f_frsize >= 4 << 30
    usable = os.access("/dev/shm", os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return "/dev/shm" if has_room and usable else None


@pytest.fixture(scope="session")
def server_folders() -> Iterator[Path]:
    """A folder for servers' folders; servers in it end with pytest, even with a killed one."""
    folder = tempfile.mkdtemp(prefix="elt-tests-", dir=_memory())
    os.chmod(folder, 0o711)  # root's servers run as another user, who must get through
    command = [sys.executable, "-c", REMOVE_AFTERWARDS, folder]
    project = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, start_new_session=True) as remover:
        yield Path(folder).resolve()
        remover.stdin.close()
        assert remover.wait() == 0


@pytest.fixture(scope="session")
def servers(server_folders: Path) -> Mapping[int, Server]:
    """The servers by major version, 16 and 18, without fsync."""
    return Servers(server_folders)


_numbers = count(1)


def _fresh_database(server: Server) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    administrator = Database(server, "postgres")
    # file_copy: 60 files copied in place of 1000 pages written to WAL
    administrator.sql(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
    database = Database(server, name)
    yield database
    database.close()
    administrator.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(servers: Mapping[int, Server]) -> Iterator[Database]:
    """An empty database on PostgreSQL 18."""
    yield from _fresh_database(servers[18])


@pytest.fixture(scope="module")
def module_database(servers: Mapping[int, Server]) -> Iterator[Database]:
    """One on PostgreSQL 18 for all tests of a module: making one takes longer than most of them."""
    yield from _fresh_database(servers[18])


@pytest.fixture(params=sorted(INSTALLS), ids=lambda version: f"postgresql_{version}")
def database_on_each(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Iterator[Database]:
    """An empty database, once on PostgreSQL 16 and once on 18."""
    yield from _fresh_database(servers[request.param])
