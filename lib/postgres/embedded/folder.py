"""Where the files of an embedded server are, and the lock that says whether anybody may touch them.

One folder per server:

    server/    data, log, socket; a link into /var/lib/elt where root's service account cannot reach the folder
      alive    held by who makes or starts the server, then by each process of it

The lock is flock's: the system frees it however its holders end, and the number in an old file is never taken for a
server.
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

#: where root keeps what its service account could not reach in the folder; only root can write there
OUTSIDE = Path("/var/lib/elt")
#: names the socket's file, nothing else
PORT = "5432"
SOCKET = f".s.PGSQL.{PORT}"
#: sockaddr_un.sun_path holds 104 bytes on macOS, 108 on Linux, a NUL among them
SOCKET_PATH_BYTES = 103


def _outside(folder: Path) -> Path:
    return OUTSIDE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def home_of(folder: Path) -> Path:
    """Where the server's own files are: in the folder, or where its link leads."""
    link = folder / "server"
    home = link.resolve()
    if link.is_symlink() and home != (expected := _outside(folder)):
        raise DatabaseError(
            f"{link} was made for another place. Was the project copied? Delete the link, and the copy gets a server of"
            f" its own. Was it moved? mv {home} {expected} && ln -sfn {expected} {shlex.quote(str(link))}"
        )
    return home


def make_home(folder: Path, account: Account) -> Path:
    """`home_of`, made where it is not there; raises DatabaseError where the account can reach no place for it."""
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
                f"PostgreSQL does not run as root, and its user {account.uid} reaches neither {folder} nor {OUTSIDE}:"
                " run this as an ordinary user"
            )
    home.mkdir(mode=0o700, exist_ok=True)
    account.own(home)
    if home != link:
        with suppress(FileExistsError):
            link.symlink_to(home)
    return home


def remove_files(folder: Path) -> None:
    """Delete everything, wherever it is."""
    for each in (home_of(folder), folder):
        with suppress(FileNotFoundError):
            shutil.rmtree(each)
    with suppress(OSError):
        OUTSIDE.rmdir()  # unless other servers live there


@contextmanager
def alive_lock(home: Path) -> Iterator[int | None]:
    """The lock, or None while a server runs here, or starts, or has not quite ended."""
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
    """Inside home; below /tmp where that is too long for a socket, or has characters that libpq splits at."""
    inside = home / "socket"
    path = str(inside / SOCKET)
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
        return inside
    return Path("/tmp", f"elt-{home.stat().st_uid}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}")


def make_socket_folder(home: Path, account: Account) -> Path:
    """`socket_folder`, made where it is not there; raises DatabaseError where it isn't the account's alone."""
    folder = socket_folder(home)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account.own(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise DatabaseError(f"{folder} should be a folder that only user {account.uid} can enter: delete it")
    return folder
