"""Looks up, sets, shows and deletes the two secrets: the Keboola token and the PostgreSQL password.

Lookup order: the environment variable, the file that the *_FILE variable names, the project's own file in
.elt/secrets, keyring, and for PostgreSQL finally libpq itself (PGPASSWORD, .pgpass).
`credentials set` writes the own file only where keyring does not work. The own file is read before keyring, so a later
`set` that stores in keyring deletes the file. The last `set` therefore always applies.
An empty variable counts as unset, because crontabs and compose files write `KEBOOLA_TOKEN=` for "none".

keyring runs in a separate process, without a terminal and with a time limit, because its backends may prompt, hang
(a locked desktop keyring, a dead D-Bus) or fail while they are imported.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Mapping
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from lib.config.files import replace_file
from lib.config.secret_value import Secret
from lib.config.settings import Settings
from lib.errors import CredentialError
from lib.stop import start_thread

#: time limits for keyring in seconds: without a terminal (cron), and with one, where the user may have to unlock it
ALONE_SECONDS, ATTENDED_SECONDS = 5.0, 60.0
#: a secret is one line; a larger file was named by mistake
MAX_FILE_BYTES = 65_536
#: the longest that reading a file may take: a named pipe that nobody writes to, or a dead network drive, never answers
FILE_SECONDS = 10.0

#: values of PYTHON_KEYRING_BACKEND that switch keyring off, according to keyring's documentation
_NO_BACKEND = ("keyring.backends.fail.Keyring", "keyring.backends.null.Keyring")
_KEYRING_PROCESS = """
import json, sys
import keyring, keyring.errors
task = json.load(sys.stdin)
backend = keyring.get_keyring()
kind = type(backend).__module__
where = (task["service"], task["account"])
answer = {"backend": None if kind in ("keyring.backends.fail", "keyring.backends.null") else kind, "value": None}
if answer["backend"]:
    if task["do"] == "set":
        keyring.set_password(*where, task["value"])
    answer["value"] = keyring.get_password(*where)
    if task["do"] == "delete" and answer["value"] is not None:
        keyring.delete_password(*where)
print("\\n" + json.dumps(answer))
"""


class _KeyringError(CredentialError):
    """keyring gave no answer, so it is unknown what it holds. A lookup then reports it as one more place tried."""


@dataclass(frozen=True)
class _Wanted:
    """One secret, and the names of the places where it may be stored."""

    #: as users type it: keboola or postgres
    name: str
    variable: str
    service: str
    #: None if the PostgreSQL user is unknown; then neither keyring nor the own file can be searched
    account: str | None
    #: the project's folder; a relative path in *_FILE is relative to it, not to the working directory
    root: Path
    own_file: Path


@dataclass(frozen=True)
class _Found:
    """The result of a lookup."""

    value: str | None
    #: where the value came from
    place: str
    #: each place that had no secret, with the reason
    tried: tuple[str, ...]


def keboola_token(
    settings: Settings, environ: Mapping[str, str] = os.environ, file_seconds: float = FILE_SECONDS
) -> Secret:
    """The Storage API token. Raises CredentialError that lists each place tried if there is none."""
    if settings.keboola_token is not None:
        return settings.keboola_token
    found = _find(_wanted("keboola", settings, None, environ), environ, file_seconds)
    if found.value is None:
        raise CredentialError(_missing_token(found))
    return Secret(found.value, _remedy(found.place, "keboola"))


def postgres_password(
    settings: Settings,
    user: str | None,
    environ: Mapping[str, str] = os.environ,
    file_seconds: float = FILE_SECONDS,
) -> Secret | None:
    """The password of a PostgreSQL user, or None: libpq then looks at PGPASSWORD and .pgpass itself.

    user None: the user that libpq would connect as. An embedded server has no passwords. Raises CredentialError if a
    variable or file is set but cannot be used.
    """
    if settings.postgres_password is not None or settings.postgres.embedded:
        return settings.postgres_password
    found = _find(_wanted("postgres", settings, user, environ), environ, file_seconds)
    return None if found.value is None else Secret(found.value, _remedy(found.place, "postgres"))


def libpq_remedy(said: str, environ: Mapping[str, str] = os.environ) -> str:
    """The same sentence for a password that libpq itself took. `said` is its message, which names .pgpass if used."""
    if file := re.search('password retrieved from file "(.+)"', said):
        return f"The password came from {file[1]}: correct it there, or {_SET['postgres']}, which takes precedence."
    if environ.get("PGPASSWORD"):
        return f"The password came from PGPASSWORD: correct it there, or {_SET['postgres']}, which takes precedence."
    return f"To set the password, {_SET['postgres']}."


def missing_password(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """The places where a PostgreSQL password was looked for in vain, and how to set one."""
    found = _find(_wanted("postgres", settings, settings.postgres.user, environ), environ)
    tried = "".join(f"\n    {text}" for text in (*found.tried, "libpq: nothing in PGPASSWORD or .pgpass"))
    return f"PostgreSQL asks for a password and none was found. Tried:{tried}\n    To set it, {_SET['postgres']}."


def readable_files(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """One text for each file of a secret that other users can read or change, with the command that closes it."""
    found = []
    for name in ("keboola",) if settings.postgres.embedded else ("keboola", "postgres"):
        wanted = _wanted(name, settings, None, environ)
        named = environ.get(f"{wanted.variable}_FILE")
        for path in [*([wanted.root / named] if named else []), wanted.own_file]:
            with suppress(OSError):
                mode = path.stat().st_mode
                if stat.S_ISREG(mode) and mode & 0o077:
                    found.append(
                        f"{path} holds a secret, and other users can read or change it:"
                        f" chmod 600 {shlex.quote(str(path))}"
                    )
    return found


def set_secret(
    settings: Settings,
    name: str,
    value: str,
    user: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Store the secret `keboola` or `postgres`.

    Returns where it was stored, and which environment variable takes precedence over it, if one is set.
    It is stored in keyring, or if that fails in a file that only its owner can read. Raises CredentialError.
    """
    wanted = _wanted(name, settings, user, environ)
    _checked(value, wanted, "what was typed")
    if wanted.account is None:
        raise CredentialError("the PostgreSQL user is not known: write user = ... into elt_settings.toml first")
    try:
        answer = _keyring("set", wanted, environ, value)
        # some backends accept a value but do not keep it, so compare what they return
        place, why = answer.place if answer.value == value else "", "".join(answer.tried)
    except _KeyringError as error:
        place, why = "", str(error)
    if place:
        # the file is read before keyring: an older copy would hide the new secret
        wanted.own_file.unlink(missing_ok=True)
    else:
        _write_own_file(wanted.own_file, value)
        place = f"{wanted.own_file}, which only its owner can read ({why})"
    winner = next((text for text in (wanted.variable, f"{wanted.variable}_FILE") if environ.get(text)), None)
    return place + (f"; but {winner} is set here and takes precedence" if winner else "")


def show_secret(settings: Settings, name: str, user: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """One line that says where the secret comes from. Shows the public part of a Keboola token, nothing of a password.

    Raises CredentialError that lists each place tried if there is no Keboola token.
    """
    if name == "postgres" and settings.postgres.embedded:
        return "none needed: the embedded PostgreSQL has no passwords"
    found = _find(_wanted(name, settings, user, environ), environ)
    if name == "postgres":
        return f"from {found.place}" if found.value else "none here: libpq looks at PGPASSWORD and .pgpass itself"
    if found.value is None:
        raise CredentialError(_missing_token(found))
    # project id and token id are public (docs/keboola.md 1); only the part after the second dash is secret
    public = re.match(r"\d+-\d+-(?=.)", found.value)
    return f"from {found.place}: {public[0] if public else ''}****"


def delete_secret(
    settings: Settings, name: str, user: str | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Delete what `set_secret` may have stored. Returns the places from which something was deleted.

    Raises CredentialError if keyring gives no answer: it may still hold the secret.
    """
    wanted = _wanted(name, settings, user, environ)
    deleted: list[str] = []
    try:
        wanted.own_file.unlink()
        deleted.append(str(wanted.own_file))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CredentialError(f"{wanted.own_file} cannot be deleted: {error.strerror}") from None
    if wanted.account is not None:
        answer = _keyring("delete", wanted, environ)
        deleted += [answer.place] if answer.value is not None else []
    return tuple(deleted)


def postgres_user(settings: Settings, environ: Mapping[str, str] = os.environ) -> str | None:
    """The user that libpq would connect as. None if a service file decides, or the system has no name for our uid."""
    user = settings.postgres.user or environ.get("PGUSER")
    if user or settings.postgres.service or environ.get("PGSERVICE"):
        return user or None
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _wanted(name: str, settings: Settings, user: str | None, environ: Mapping[str, str]) -> _Wanted:
    folder = settings.state / "secrets"
    if name == "keboola":
        return _Wanted(name, "KEBOOLA_TOKEN", "KEBOOLA", "keboola", settings.root, folder / "keboola_token")
    if name != "postgres":
        raise CredentialError(f"no secret is named {name!r}; there are keboola and postgres")
    account = user or postgres_user(settings, environ)
    own_file = folder / f"postgres_password.{quote(account or '', safe='')}"
    return _Wanted(name, "POSTGRES_PASSWORD", "POSTGRES", account, settings.root, own_file)


def _find(wanted: _Wanted, environ: Mapping[str, str], file_seconds: float = FILE_SECONDS) -> _Found:
    """Look into each place in order. A place that is configured but cannot be used is an error; the search stops."""
    if value := environ.get(wanted.variable):
        return _Found(_checked(value, wanted, wanted.variable), wanted.variable, ())
    tried = [f"{wanted.variable}: {'empty' if wanted.variable in environ else 'not set'}"]
    variable = f"{wanted.variable}_FILE"
    if path := environ.get(variable):
        file = wanted.root / path
        value = _read_file(file, wanted, f"{variable}={file}", file_seconds)
        if value is None:
            raise CredentialError(f"{variable}={file}: there is no such file")
        return _Found(value, f"{variable} ({file})", ())
    tried.append(f"{variable}: {'empty' if variable in environ else 'not set'}")
    if wanted.account is None:
        return _Found(None, "", (*tried, "keyring: not asked, the user is not known"))
    value = _read_file(wanted.own_file, wanted, str(wanted.own_file), file_seconds)
    if value is not None:
        return _Found(value, str(wanted.own_file), ())
    tried.append(f"{wanted.own_file}: no such file")
    try:
        answer = _keyring("get", wanted, environ)
    except _KeyringError as error:
        return _Found(None, "", (*tried, str(error)))
    if answer.value is not None:
        _checked(answer.value, wanted, answer.place)
    return _Found(answer.value, answer.place, (*tried, *answer.tried))


def _missing_token(found: _Found) -> str:
    places = "\n".join(f"  {text}" for text in found.tried)
    return (
        f"there is no Keboola token. Tried:\n{places}\nSet it with: python main.py credentials set keboola\n"
        "(cron cannot reach a desktop's keyring: in the crontab, set KEBOOLA_TOKEN_FILE to a file with the token)"
    )


_SET = {name: f"type `python main.py credentials set {name}`" for name in ("keboola", "postgres")}


def _remedy(place: str, name: str) -> str:
    """Where a secret came from and how to correct it. A variable takes precedence over what `set` stores."""
    came = f"The {'token' if name == 'keboola' else 'password'} came from {place}"
    if place.startswith(("KEBOOLA_TOKEN", "POSTGRES_PASSWORD")):
        return f"{came}: correct it there, because `credentials set` has no effect while that variable is set."
    return f"{came}: to replace it, {_SET[name]}."


def _checked(value: str, wanted: _Wanted, place: str) -> str:
    """Return the value if its form is valid. Raises CredentialError, whose message never repeats the value."""
    if wanted.name == "keboola" and not re.fullmatch(r"[!-~]+", value):
        raise CredentialError(
            f"{place}: a Keboola token has no blanks, line breaks or letters beyond ASCII; copy it again"
        )
    if not value or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise CredentialError(f"{place}: a password must be one line of text and not empty")
    return value


def _read_file(path: Path, wanted: _Wanted, place: str, seconds: float) -> str | None:
    """The one line of a file, or None if there is no file. Raises CredentialError.

    The file's mode is not checked: Docker makes its secrets readable by every user in the container.
    """
    # in a thread of its own: opening a named pipe waits for its writer and cannot be interrupted
    reading = start_thread(partial(_content_of, path), "a secret's file")
    if not wait([reading], timeout=seconds).done:
        raise CredentialError(f"{place}: cannot be read: nothing came within {seconds:g} s; who should write into it?")
    try:
        content = reading.result()
        text = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialError(f"{place}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CredentialError(f"{place}: is not a text file with one line") from None
    if not text.strip():
        raise CredentialError(f"{place}: the file is empty")
    if len(content) > MAX_FILE_BYTES or "\n" in text:
        raise CredentialError(f"{place}: the file must hold one line, the secret, and nothing else")
    return _checked(text, wanted, place)


def _content_of(path: Path) -> bytes:
    """The file's bytes. A pipe is read once in the life of the process, because it gives its content only once."""
    if path in _piped:
        return _piped[path]
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            _piped[path] = content
    return content


_piped: dict[Path, bytes] = {}


def _write_own_file(path: Path, value: str) -> None:
    """Write the file atomically. Only its owner can read it, from the moment it exists. Raises CredentialError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        replace_file(path, value + "\n", mode=0o600)
    except OSError as error:
        raise CredentialError(f"{path} cannot be written: {error.strerror}") from None


def _keyring(do: str, wanted: _Wanted, environ: Mapping[str, str], value: str | None = None) -> _Found:
    """Get, set or delete a secret in keyring. Raises _KeyringError if it gives no answer.

    Answers to `get` are cached for the life of the process, because every connection asks for the same password.
    """
    seconds = ATTENDED_SECONDS if os.isatty(0) else ALONE_SECONDS
    place = f"keyring ({wanted.service!r}, {wanted.account!r})"
    task = {"do": do, "service": wanted.service, "account": wanted.account, "value": value}
    key = (wanted.service, wanted.account, frozenset(environ.items()))
    with _lock:
        if do != "get":
            _answers.clear()
        answer = _answers.get(key) or ask_keyring(task, environ, seconds)
        if do == "get":
            _answers[key] = answer
    if isinstance(answer, str):
        raise _KeyringError(f"{place}: {answer}")
    why = "no entry" if answer["backend"] else "no backend on this machine"
    return _Found(answer["value"], place, (f"{place}: {why}",))


_answers: dict[object, dict[str, str | None] | str] = {}
_lock = threading.Lock()


def ask_keyring(task: dict[str, str | None], environ: Mapping[str, str], seconds: float) -> dict[str, str | None] | str:
    """keyring's `backend` and `value`, or the reason why it gave no answer. Returns after about `seconds` at most.

    keyring runs in its own session: it has no terminal to prompt on, and its child processes are killed with it.
    """
    if environ.get("PYTHON_KEYRING_BACKEND") in _NO_BACKEND:
        return {"backend": None, "value": None}
    command = [sys.executable, "-c", _KEYRING_PROCESS]
    # run in "/", so that a keyring.py in the working directory is not imported instead
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            out, trouble = process.communicate(json.dumps(task).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"no answer within {seconds:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        # a backend may print too; our answer is the last line
        answer: dict[str, str | None] = json.loads(out.splitlines()[-1])
        return answer
    last = (trouble.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    if task["value"] and task["value"] in last:
        return "failed"
    return "the package is not installed" if "No module named 'keyring'" in last else f"failed: {last[:200]}"
