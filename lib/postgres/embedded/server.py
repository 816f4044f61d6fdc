"""Starts and stops a PostgreSQL from a package, for the demo, the tests and `embedded = true`.

The server accepts connections only on a socket that its account and root can reach, never from the network. It keeps
running after the process that started it, is shared by any number of processes, and runs until it is stopped.
This module creates no account, changes no permission outside the server's folder (folder.py), and ends no process
except the postmaster of the folder's own data.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lib.errors import DatabaseError
from lib.postgres.embedded.folder import (
    PORT,
    SOCKET,
    alive_lock,
    home_of,
    make_home,
    make_socket_folder,
    remove_files,
    socket_folder,
)
from lib.postgres.embedded.package import Account, account_for, programs, programs_for

#: protocol message SSLRequest: a postmaster answers it with one byte, even while it starts up or shuts down
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: seconds; long enough to replay max_wal_size after a crash
START_SECONDS = 300
STOP_SECONDS = 120

#: files with a container's memory limit in bytes on Linux: control groups, version 2 and version 1
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
#: cores that this process may use, or all cores if the system cannot say
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(limits: Sequence[str] = MEMORY_LIMITS) -> int:
    """MB of memory that this process may use: the machine's, or its container's limit if that is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in limits:
        with suppress(OSError, ValueError):  # no such file, or "max"
            sizes.append(int(Path(limit).read_text(encoding="ascii")))
    return min(sizes) // 1024**2


SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # A quarter of the memory, as PostgreSQL advises ("Resource Consumption"), but at most 4 GB, which is enough for the
    # tables. If this is too small, the load must itself write pages to disk before it can go on. A million rows with
    # their replacement and staging take 0.5 GB.
    "shared_buffers": f"{min(4096, memory() // 4)}MB",
    "maintenance_work_mem": "256MB",
    # With these two settings three loads of a million rows write 1.05 GB of WAL. With the defaults (1GB and 5min) they
    # write 1.95 GB. wal_compression would save only 3 % more.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    # If this is small, a load waits while its WAL is written: with 8MB, replacing a table's rows takes 10 % longer.
    "wal_buffers": "64MB",
    # COMMIT waits until the remaining WAL is written. At 200ms, the default, replacing rows takes 5 % longer.
    "wal_writer_delay": "50ms",
    # Workers in addition to the process that runs the query. More processes than cores would not be faster.
    "max_parallel_workers_per_gather": str(min(2, CORES - 1)),
    # The default is /dev/shm, which has only 64 MB in a container: too little for one parallel join of a million rows.
    "dynamic_shared_memory_type": "mmap",
}
#: faster, for tests; data survive a killed server, but not a power failure of the machine
NO_FSYNC = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server whose data are in a folder of the project."""

    folder: Path
    version: int
    fsync: bool = True
    #: lines for postgresql.conf
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, folder: Path, version: int = 18, *, fsync: bool = True, settings: Mapping[str, str] | None = None
    ) -> Server:
        """Start the server of this folder; make its data first if there are none.

        If it is running already, it is used as it is, with the settings with which it was started.
        Raises SettingsError if the package is not installed, and DatabaseError with the last lines of the server's log
        if PostgreSQL does not start."""
        server = cls(folder.resolve(), version, fsync, dict(settings or {}))
        with _os_errors(server.folder):
            server._ensure_running()
        return server

    @property
    def psql(self) -> Path:
        """The psql of the server's own version."""
        return programs(self.version) / "psql"

    @property
    def log(self) -> Path:
        return home_of(self.folder) / "log"

    @property
    def running(self) -> bool:
        return _answers(home_of(self.folder))

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, or None if the server is not running."""
        return _postmaster(home_of(self.folder)) if self.running else None

    def connect_args(self, dbname: str = "postgres") -> dict[str, str]:
        """Arguments of psycopg2.connect. They take precedence over PGHOST, PGPORT, PGUSER and PGDATABASE."""
        return {
            "host": str(socket_folder(home_of(self.folder))),
            "port": PORT,
            "user": "postgres",
            "dbname": dbname,
        }

    def psql_command(self, dbname: str = "postgres") -> str:
        """The shell command that opens psql on this server."""
        address = " ".join(f"{name}={value}" for name, value in self.connect_args(dbname).items())
        return f"{shlex.quote(str(self.psql))} {shlex.quote(address)}"

    def stop(self) -> None:
        """Shut down the server for all processes that use it. Their open transactions are rolled back."""
        stop_running(self.folder)

    def restart(self, mode: str = "fast") -> None:
        """Stop as `pg_ctl stop -m MODE` does ("fast" cleanly, "immediate" as in a crash) and start again."""
        with _os_errors(self.folder):
            _stop(home_of(self.folder), {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self._ensure_running()

    def _ensure_running(self) -> None:
        account = account_for(self.folder / "server" / "data")
        home = make_home(self.folder, account)
        deadline = time.monotonic() + START_SECONDS
        while not _ready(home):
            with alive_lock(home) as alive:
                if alive is not None:
                    self._start(home, account, alive)
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"the PostgreSQL in {home} has neither started nor ended within {START_SECONDS} s;"
                    f" its log is {self.log}"
                )
            time.sleep(0.02)
        self._check_version(home)

    def _start(self, home: Path, account: Account, alive: int) -> None:
        bin_folder = programs_for(account, self.version, home)
        if not (home / "data").exists():
            self._initdb(bin_folder, home, account, alive)
        self._check_version(home)
        sockets = make_socket_folder(home, account)
        # We hold the lock, so no server is running. If another program now has the process id in such an old file,
        # PostgreSQL would think that it is still running and refuse to start.
        for stale in (home / "data" / "postmaster.pid", sockets / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        changing = {"unix_socket_directories": str(sockets)}
        changing |= {} if self.fsync else NO_FSYNC
        _write_settings(home / "data" / "elt.conf", SETTINGS | changing | dict(self.settings), account)
        size_before = self.log.stat().st_size if self.log.exists() else 0
        # relative paths, because pg_ctl passes them to a shell
        command: list[str | Path] = [bin_folder / "pg_ctl", "--pgdata=data", "--log=log", "--silent", "--wait"]
        try:
            account.run([*command, f"--timeout={START_SECONDS}", "start"], home, keep_open=(alive,))
        except subprocess.CalledProcessError as error:
            said = self.log.read_bytes()[size_before:].decode("utf-8", "replace") if self.log.exists() else ""
            raise DatabaseError(f"PostgreSQL did not start; {self.log} ends\n{_tail(said or error.output)}") from error

    def _initdb(self, bin_folder: Path, home: Path, account: Account, alive: int) -> None:
        """Make the data under a temporary name, then rename it. So a kill meanwhile leaves no half-made database.

        Raises DatabaseError with initdb's output.
        """
        for litter in home.glob("initdb-*"):
            shutil.rmtree(litter)
        new = Path(tempfile.mkdtemp(prefix="initdb-", dir=home))
        account.own(new)
        command: list[str | Path] = [bin_folder / "initdb", f"--pgdata={new.name}", "--username=postgres"]
        command += [
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-instructions",
        ]
        if self.version >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.fsync:
            command += ["--no-sync"]
        try:
            # initdb inherits the lock: if we are killed, no other process deletes the folder while initdb still writes
            account.run(command, home, keep_open=(alive,))
        except subprocess.CalledProcessError as error:
            shutil.rmtree(new)
            raise DatabaseError(f"initdb failed in {home}\n{_tail(error.output)}") from error
        with open(new / "postgresql.conf", "a", encoding="utf-8") as configuration:
            configuration.write("\ninclude 'elt.conf'\n")
        new.rename(home / "data")

    def _check_version(self, home: Path) -> None:
        found = (home / "data" / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise DatabaseError(
                f"{self.folder} holds data of PostgreSQL {found}, which {self.version} cannot read:"
                f" start version {found} there,"
                " or use another folder and copy the data with pg_dump"
            )


def stop_running(folder: Path) -> bool:
    """Stop the server of this folder. Returns False if none was running."""
    folder = folder.resolve()
    if not (folder / "server").exists():
        return False
    with _os_errors(folder):
        return _stop(home_of(folder), signal.SIGINT)


def remove(folder: Path) -> None:
    """Stop the server of this folder and delete it with its data."""
    folder = folder.resolve()
    stop_running(folder)
    remove_files(folder)


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a DatabaseError."""
    try:
        yield
    except OSError as error:
        raise DatabaseError(f"embedded PostgreSQL in {folder}: {error}") from error


def _write_settings(path: Path, settings: Mapping[str, str], account: Account) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}
    path.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()), encoding="utf-8")
    account.own(path)


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-8:])


def _answers(home: Path) -> bool:
    """Whether a postmaster answers on the socket. After a kill the socket may exist for a moment without an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(START_SECONDS)
        try:
            client.connect(str(socket_folder(home) / SOCKET))
            client.sendall(SSL_REQUEST)
            return client.recv(1) != b""
        except (FileNotFoundError, ConnectionError):
            return False


def _postmaster(home: Path) -> int | None:
    with suppress(FileNotFoundError, ValueError):
        return int((home / "data" / "postmaster.pid").read_text().partition("\n")[0])
    return None


def _ready(home: Path) -> bool:
    """Whether a server is running and accepts connections: it is neither starting up nor shutting down."""
    if not home.exists() or not _answers(home):
        return False
    with suppress(FileNotFoundError):
        return (home / "data" / "postmaster.pid").read_text().rstrip().endswith("\nready")
    return False


def _stop(home: Path, signal_number: signal.Signals) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    signalled = False
    while True:
        if not signalled and _answers(home) and (postmaster := _postmaster(home)):
            with suppress(ProcessLookupError):
                os.kill(postmaster, signal_number)
            signalled = True
        with alive_lock(home) as alive:
            if alive is not None and not _answers(home):
                break
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"the PostgreSQL in {home} did not stop within {STOP_SECONDS} s; its log is {home / 'log'}"
            )
        time.sleep(0.02)
    folder = socket_folder(home)
    if folder.parent != home:
        with suppress(OSError):
            folder.rmdir()
    return signalled
