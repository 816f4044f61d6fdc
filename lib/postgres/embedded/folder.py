"""Where the files of an embedded server are, and the lock that shows whether a server uses them.

One folder per server:

    server/    data, log, socket; a symlink into /var/lib/elt if root's service account cannot enter the folder
      alive    the lock file; locked by the process that makes or starts the server, then by each server process

The lock is taken with flock(): the system releases it however its holders end. A process id in an old postmaster.pid
is therefore never mistaken for a running server.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.errors import DatabaseError
from lib.postgres.embedded.package import Account

#: where root puts the server's files if the service account cannot enter the folder; only root can write there
OUTSIDE = Path("/var/lib/elt")
#: only part of the socket's file name; the server listens on no TCP port
PORT = "5432"
SOCKET = f".s.PGSQL.{PORT}"
#: sockaddr_un.sun_path has 104 bytes on macOS and 108 on Linux, including the final NUL
SOCKET_PATH_BYTES = 103


def _outside(folder: Path) -> Path:
    return OUTSIDE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def home_of(folder: Path) -> Path:
    """Where the server's files are: in `folder`, or where its symlink leads.

    Raises DatabaseError if the symlink was made for a folder in another place.
    """
    link = folder / "server"
    home = link.resolve()
    if link.is_symlink() and home != (expected := _outside(folder)):
        raise DatabaseError(
            f"{link} was made for another folder. If the project was copied: delete the link, and the copy gets its own"
            f" server. If it was moved: mv {home} {expected} && ln -sfn {expected} {shlex.quote(str(link))}"
        )
    return home


def make_home(folder: Path, account: Account) -> Path:
    """Make the folder of `home_of` if it is missing. Raises DatabaseError if there is none the account can enter."""
    link = folder / "server"
    home = home_of(folder)
    if (home / "data").exists():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    if home == link and not account.can_enter(folder):
        home = _outside(folder)
    if home != link:
        with suppress(FileExistsError):
            OUTSIDE.mkdir()
            OUTSIDE.chmod(0o755)
        if not account.can_enter(OUTSIDE):
            raise DatabaseError(
                f"PostgreSQL does not run as root, and user {account.uid}, who would run it, can enter neither {folder}"
                f" nor {OUTSIDE}: run this as an ordinary user"
            )
    home.mkdir(mode=0o700, exist_ok=True)
    account.own(home)
    if home != link:
        with suppress(FileExistsError):
            link.symlink_to(home)
    return home


def remove_files(folder: Path) -> None:
    """Delete all files of the server, including those below OUTSIDE."""
    for each in (home_of(folder), folder):
        with suppress(FileNotFoundError):
            shutil.rmtree(each)
    with suppress(OSError):
        OUTSIDE.rmdir()  # fails, as it should, if it holds files of other servers


@contextmanager
def alive_lock(home: Path) -> Iterator[int | None]:
    """The file descriptor of the lock, or None while a server is starting, running or ending here."""
    alive = os.open(home / "alive", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.geteuid() == 0:
            owner = home.stat()
            os.fchown(alive, owner.st_uid, owner.st_gid)
        free = False
        with suppress(BlockingIOError):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield alive if free else None
    finally:
        os.close(alive)


def socket_folder(home: Path) -> Path:
    """The folder of the socket: in `home`, or below /tmp if that path is too long or has characters that libpq splits
    at."""
    inside = home / "socket"
    path = str(inside / SOCKET)
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
        return inside
    return Path("/tmp", f"elt-{home.stat().st_uid}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}")


def make_socket_folder(home: Path, account: Account) -> Path:
    """Make the socket's folder if it is missing. Raises DatabaseError if other users can enter it."""
    folder = socket_folder(home)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account.own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise DatabaseError(f"{folder} should be a folder that only user {account.uid} can enter: delete it")
    return folder
