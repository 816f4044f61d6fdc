"""`check --as-cron`: runs `check --online` as cron would, and finds what works in a shell and fails in cron.

Cron's environment: crontab(5), and POSIX crontab, "ENVIRONMENT VARIABLES".
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lib.cli.console import Console
from lib.config.settings import Settings
from lib.errors import SettingsError

#: variables that change what a run does; cron has none of them unless the crontab sets it
MATTERING = re.compile(
    r"(https?|all|no)_proxy|requests_ca_bundle|ssl_cert_(file|dir)|curl_ca_bundle|pg[a-z]+|(keboola|postgres)_\w+"
    r"|python(path|home|_keyring_backend)|tz|ld_library_path",
    re.IGNORECASE,
)
#: bytes that should be free where the page, the log and an embedded PostgreSQL are written
ROOM = 1 << 30


def check_as_cron(settings: Settings, console: Console, crontab: str | None, environ: Mapping[str, str]) -> int:
    """Run the checks, print every finding and the crontab line. Returns 2 if there is a problem, else 0.

    crontab: a file whose variables cron would set. Raises SettingsError if it cannot be read.
    """
    variables = read_variables(Path(crontab)) if crontab else {}
    cron = cron_environment() | variables
    is_demo = settings.state_folder != ".elt"
    words = ["main.py", *(["demo"] if is_demo else []), "check", "--online"]
    console.text(f"as cron: env -i {' '.join(sorted(cron))}, in /, without a terminal")
    # its output is read and printed here, because it has no terminal
    done = subprocess.run(
        [sys.executable, str(settings.root / words[0]), *words[1:]],
        env=cron,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    console.text(done.stdout.rstrip("\n"))
    for text in _only_in_this_shell(environ, cron):
        console.warn(text)
    problems = [*_of_places(settings, cron)]
    for text in problems:
        console.error(text)
    if not is_demo:
        lines = crontab_lines(settings, cron)
        console.text(
            f"\nPaste these lines with crontab -e; the load then starts at 06:00 of this machine's clock:\n\n{lines}"
        )
    return 2 if problems or done.returncode else 0


def cron_environment() -> dict[str, str]:
    """What cron sets for a job of the user who runs this."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise SettingsError(
            f"cron runs jobs of users that the system knows, and user {os.geteuid()} has no name"
        ) from None
    return {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}


def read_variables(crontab: Path) -> dict[str, str]:
    """The variables that a crontab sets. Quotes around a value are removed, as cron does; nothing is expanded."""
    try:
        text = crontab.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{crontab} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8 text')}") from None
    found: dict[str, str] = {}
    for line in text.splitlines():
        if pair := re.match(r"""\s*(["']?)(\w+)\1\s*=\s*(.*?)\s*$""", line):
            value = pair[3]
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[pair[2]] = value[1:-1] if is_quoted else value
    return found


def _only_in_this_shell(environ: Mapping[str, str], cron: Mapping[str, str]) -> Iterator[str]:
    """Variables that this shell has and cron has not. Their values are not printed: they may be secret."""
    for name in sorted(environ):
        if MATTERING.fullmatch(name) and environ[name] and cron.get(name) != environ[name]:
            differs = "has another value" if name in cron else "is not set"
            yield f"{name} is set in this shell, and {differs} in cron: if a run needs it, write it into the crontab"


def _of_places(settings: Settings, cron: Mapping[str, str]) -> Iterator[str]:
    """What would keep the log or the page from being written."""
    for folder, what in ((settings.root, "the log elt.log"), (settings.state, "the page, secrets and embedded data")):
        exists = folder if folder.exists() else folder.parent
        if not os.access(exists, os.W_OK | os.X_OK):
            yield f"{folder}: {cron['LOGNAME']} cannot write there ({what}): chown or chmod the folder"
            continue
        free = shutil.disk_usage(exists).free
        if free < ROOM:
            yield f"{folder}: only {free >> 20:,} MB are free there ({what}): make room"
    for file in (settings.root / "elt.log", settings.state / "report.html"):
        if file.exists() and not os.access(file, os.W_OK):
            yield f"{file} belongs to somebody else and cannot be written: chown or delete it"


def crontab_lines(settings: Settings, cron: Mapping[str, str]) -> str:
    """The lines of a crontab for this machine, project and Python."""
    shell = shutil.which("bash", path=cron["PATH"]) or "/bin/sh"
    has_pipefail = shell.endswith("bash")
    root, python = shlex.quote(str(settings.root)), shlex.quote(_python(settings.root))
    run = f"{python} elt_daily_load.py --quiet"
    # a percent sign is a line break in a crontab
    command = f"cd {root} && {run} 2>&1 | tee -a elt.log" if has_pipefail else f"cd {root} && {run}"
    command = ("set -o pipefail; " if has_pipefail else "") + command
    return (
        f"SHELL={shell}\nMAILTO={cron.get('MAILTO', cron['LOGNAME'])}\n0 6 * * *  {command.replace('%', chr(92) + '%')}"
    )


def _python(root: Path) -> str:
    inside = os.path.relpath(sys.executable, root)
    return sys.executable if inside.startswith("..") else inside
