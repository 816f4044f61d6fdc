"""PostgreSQL from a wheel: for the demo, for the tests and for who writes `embedded = true`.

Owns one folder per server:

    lock       held by who makes, starts or stops the server
    server/    data, log, socket; a link into /var/lib/elt where root's service account cannot reach the folder
      alive    held by every process of the running server, so that a number in an old file is never taken for it

Both locks are flock's: the system frees them however their holder ends. The server accepts connections on a socket
that only its account and root can reach, never from the network. It outlives the process that started it, any number
of processes share it, and it ends when it is told to. No account is created, no permission changed outside the folder,
and no process ended but the postmaster of the folder's own data.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lib.errors import DatabaseError
from lib.wheel import Account, account_for, programs, programs_for

#: where root keeps what its service account could not reach in the folder; only root can write there
OUTSIDE = Path("/var/lib/elt")
#: names the socket's file, nothing else
PORT = "5432"
SOCKET = f".s.PGSQL.{PORT}"
#: protocol message SSLRequest: a postmaster answers it with one byte, in whatever state it is
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
#: sockaddr_un.sun_path holds 104 bytes on macOS, 108 on Linux, a NUL among them
SOCKET_PATH_BYTES = 103
#: seconds; long enough to replay max_wal_size after a crash
START_SECONDS = 300
STOP_SECONDS = 120

SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    # three loads of a million rows write 1.05 GB of WAL, and 1.95 GB with 1GB and 5min; compression saves 3 % more
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    # a container's /dev/shm has 64 MB, too little for one parallel join of a million rows
    "dynamic_shared_memory_type": "mmap",
}
#: the data survive a killed server, not a machine that loses power
NO_FSYNC = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL whose data live in a folder of ours."""

    folder: Path
    version: int
    fsync: bool = True
    #: lines for postgresql.conf
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, folder: Path, version: int = 18, *, fsync: bool = True, settings: Mapping[str, str] | None = None
    ) -> Server:
        """Make and start the server of this folder, or join the one that runs there, as it was started.

        Raises SettingsError where the package is not installed, DatabaseError with the last lines of the server's log
        where PostgreSQL does not start."""
        server = cls(folder.resolve(), version, fsync, dict(settings or {}))
        with _locked(server.folder) as lock:
            server._ensure_running(lock)
        return server

    @property
    def psql(self) -> Path:
        """The psql of the server's own version."""
        return programs(self.version) / "psql"

    @property
    def log(self) -> Path:
        return _home(self.folder) / "log"

    @property
    def running(self) -> bool:
        return _answers(_home(self.folder))

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None where the server is not running."""
        return _postmaster(_home(self.folder)) if self.running else None

    def connect_args(self, dbname: str = "postgres") -> dict[str, str]:
        """Arguments of psycopg2.connect; they win over PGHOST, PGPORT, PGUSER and PGDATABASE."""
        return {
            "host": str(_socket_folder(_home(self.folder))),
            "port": PORT,
            "user": "postgres",
            "dbname": dbname,
        }

    def psql_command(self, dbname: str = "postgres") -> str:
        """The line to type into a shell for a psql on this server."""
        address = " ".join(f"{name}={value}" for name, value in self.connect_args(dbname).items())
        return f"{shlex.quote(str(self.psql))} {shlex.quote(address)}"

    def stop(self) -> None:
        """Shut down, for all who share the server; whatever they do at the moment is rolled back."""
        stop_running(self.folder)

    def restart(self, mode: str = "fast") -> None:
        """Stop as `pg_ctl stop -m MODE` does ("fast" cleanly, "immediate" as in a crash) and start again."""
        with _locked(self.folder) as lock:
            _stop(_home(self.folder), {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self._ensure_running(lock)

    def _ensure_running(self, lock: int) -> None:
        account = account_for(self.folder / "server" / "data")
        home = _make_home(self.folder, account)
        deadline = time.monotonic() + START_SECONDS
        while not _ready(home):
            with _alive(home) as alive:
                if alive is not None:
                    self._start(home, account, lock, alive)
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"the PostgreSQL in {home} neither starts nor ends for {START_SECONDS} s; its log is {self.log}"
                )
            time.sleep(0.02)
        self._check_version(home)

    def _start(self, home: Path, account: Account, lock: int, alive: int) -> None:
        bin_folder = programs_for(account, self.version, home)
        if not (home / "data").exists():
            _initdb(bin_folder, self.version, home, account, lock)
        self._check_version(home)
        sockets = _make_socket_folder(home, account)
        # nobody is alive, and PostgreSQL would take a stranger who has the old process id by now for itself
        for stale in (home / "data" / "postmaster.pid", sockets / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        changing = {"unix_socket_directories": str(sockets)}
        changing |= {} if self.fsync else NO_FSYNC
        _write_settings(home / "data" / "elt.conf", SETTINGS | changing | dict(self.settings), account)
        size_before = self.log.stat().st_size if self.log.exists() else 0
        # relative paths, since pg_ctl hands them to a shell
        command: list[str | Path] = [bin_folder / "pg_ctl", "--pgdata=data", "--log=log", "--silent", "--wait"]
        try:
            account.run([*command, f"--timeout={START_SECONDS}", "start"], home, keep_open=(alive,))
        except subprocess.CalledProcessError as error:
            said = self.log.read_bytes()[size_before:].decode("utf-8", "replace") if self.log.exists() else ""
            raise DatabaseError(f"PostgreSQL did not start; {self.log} ends\n{_tail(said or error.output)}") from error

    def _check_version(self, home: Path) -> None:
        found = (home / "data" / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise DatabaseError(
                f"{self.folder} holds data of PostgreSQL {found}, which {self.version} cannot read: start {found} there,"
                " or take another folder and bring the data over with pg_dump"
            )


def stop_running(folder: Path) -> bool:
    """Stop the server of this folder; False where none runs."""
    folder = folder.resolve()
    if not (folder / "server").exists():
        return False
    with _locked(folder):
        return _stop(_home(folder), signal.SIGINT)


def remove(folder: Path) -> None:
    """Stop the server of this folder and delete it with its data."""
    folder = folder.resolve()
    stop_running(folder)
    with suppress(FileNotFoundError):
        shutil.rmtree(_home(folder))
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _open_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(lock, owner.st_uid, owner.st_gid)
    return lock


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; what the system refuses meanwhile becomes a DatabaseError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(folder / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)
    except OSError as error:
        raise DatabaseError(f"embedded PostgreSQL in {folder}: {error}") from error


@contextmanager
def _alive(home: Path) -> Iterator[int | None]:
    """The lock that a running server holds, None where one does: a starting, a stopping or a dying one, too."""
    alive = _open_lock(home / "alive")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield alive
    except BlockingIOError:
        yield None
    finally:
        os.close(alive)


def _outside(folder: Path) -> Path:
    return OUTSIDE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _home(folder: Path) -> Path:
    """Where the server's own files are: in the folder, or where its link leads."""
    link = folder / "server"
    home = link.resolve()
    if link.is_symlink() and home != _outside(folder):
        raise DatabaseError(
            f"{link} was made for another place. Was the project copied? Delete the link, and the copy gets a server of"
            f" its own. Was it moved? mv {home} {_outside(folder)} && ln -sfn {_outside(folder)} {link}"
        )
    return home


def _make_home(folder: Path, account: Account) -> Path:
    link = folder / "server"
    home = _home(folder)
    if (home / "data").exists():
        return home
    if home == link and not account.can_enter(folder):
        home = _outside(folder)
    if home != link:
        with suppress(FileExistsError):
            OUTSIDE.mkdir()
            OUTSIDE.chmod(0o755)
        if not account.can_enter(OUTSIDE):
            raise DatabaseError(
                f"PostgreSQL does not run as root, and its user {account.uid} reaches neither {folder} nor {OUTSIDE}:"
                " run this as an ordinary user"
            )
    home.mkdir(mode=0o700, exist_ok=True)
    account.own(home)
    if home != link and not link.is_symlink():
        link.symlink_to(home)
    return home


def _initdb(bin_folder: Path, version: int, home: Path, account: Account, lock: int) -> None:
    """Make the data folder under another name, so that who is killed in the middle leaves litter, no half database."""
    for litter in home.glob("initdb-*"):
        shutil.rmtree(litter)
    new = Path(tempfile.mkdtemp(prefix="initdb-", dir=home))
    account.own(new)
    command: list[str | Path] = [bin_folder / "initdb", f"--pgdata={new.name}", "--username=postgres"]
    command += ["--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]
    if version >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        # initdb keeps the lock should we be killed, so that nobody takes for litter what it still writes
        account.run(command, home, keep_open=(lock,))
    except subprocess.CalledProcessError as error:
        shutil.rmtree(new)
        raise DatabaseError(f"initdb failed in {home}\n{_tail(error.output)}") from error
    with open(new / "postgresql.conf", "a", encoding="utf-8") as configuration:
        configuration.write("\ninclude 'elt.conf'\n")
    new.rename(home / "data")


def _write_settings(path: Path, settings: Mapping[str, str], account: Account) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}
    path.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()), encoding="utf-8")
    account.own(path)


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-8:])


def _socket_folder(home: Path) -> Path:
    """Inside home; below /tmp where that is too long for a socket, or has characters that libpq splits at."""
    inside = home / "socket"
    path = str(inside / SOCKET)
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
        return inside
    return Path("/tmp", f"elt-{home.stat().st_uid}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}")


def _make_socket_folder(home: Path, account: Account) -> Path:
    folder = _socket_folder(home)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account.own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise DatabaseError(f"{folder} should be a folder that only user {account.uid} can enter: delete it")
    return folder


def _answers(home: Path) -> bool:
    """Whether a postmaster is there. One that was killed may hold its socket for a moment, but it answers nothing."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(START_SECONDS)
        try:
            client.connect(str(_socket_folder(home) / SOCKET))
            client.sendall(SSL_REQUEST)
            return client.recv(1) != b""
        except (FileNotFoundError, ConnectionError):
            return False


def _postmaster(home: Path) -> int | None:
    with suppress(FileNotFoundError, ValueError):
        return int((home / "data" / "postmaster.pid").read_text().partition("\n")[0])
    return None


def _ready(home: Path) -> bool:
    """Whether a server is there and past its start, and not yet on its way out."""
    if not home.exists() or not _answers(home):
        return False
    with suppress(FileNotFoundError):
        return (home / "data" / "postmaster.pid").read_text().rstrip().endswith("\nready")
    return False


def _stop(home: Path, signal_number: signal.Signals) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    told = False
    while True:
        if not told and _answers(home) and (postmaster := _postmaster(home)):
            with suppress(ProcessLookupError):
                os.kill(postmaster, signal_number)
            told = True
        with _alive(home) as alive:
            if alive is not None and not _answers(home):
                break
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"the PostgreSQL in {home} did not stop within {STOP_SECONDS} s; its log is {home / 'log'}"
            )
        time.sleep(0.02)
    folder = _socket_folder(home)
    if folder.parent != home:
        with suppress(OSError):
            folder.rmdir()
    return told
