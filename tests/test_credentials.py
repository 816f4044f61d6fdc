"""Secrets: where they are found, in which order, and that nothing shows them, prompts or hangs.

keyring is the real one, in its own process, with a backend of ours that keeps a JSON file.
"""

from __future__ import annotations

import fcntl
import os
import pty
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib.config.secret_value import Secret
from lib.config.secrets import (
    ask_keyring,
    delete_secret,
    keboola_token,
    postgres_password,
    postgres_user,
    set_secret,
    show_secret,
)
from lib.config.settings import Postgres, Settings
from lib.errors import CredentialError

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "815-4711-hunter2hunter2"
BACKEND = '''
import fcntl, json, os, sys, time
from pathlib import Path
from keyring.backend import KeyringBackend

class Kept(KeyringBackend):
    """Keeps secrets in a file beside this module."""
    priority = 9
    file = Path(__file__).with_name("kept.json")
    def _all(self): return json.loads(self.file.read_text()) if self.file.exists() else {}
    def get_password(self, service, username):
        print("a backend that talks")
        with self.file.with_name("asked").open("a") as asked: asked.write("x")
        return self._all().get(f"{service}/{username}")
    def set_password(self, service, username, password):
        self.file.write_text(json.dumps({**self._all(), f"{service}/{username}": password}))
    def delete_password(self, service, username):
        kept = self._all()
        del kept[f"{service}/{username}"]
        self.file.write_text(json.dumps(kept))

class Forgets(Kept):
    def set_password(self, service, username, password): pass

class Hangs(Kept):
    def get_password(self, service, username):
        held = self.file.with_name("held").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
        os.fork()
        held.write("held, ")
        held.flush()
        time.sleep(30)

class Prompts(Kept):
    def get_password(self, service, username):
        return open("/dev/tty").readline()

class Locked(Kept):
    def get_password(self, service, username): raise RuntimeError("Failed to unlock the collection!")
    def set_password(self, service, username, password): raise RuntimeError(f"cannot keep {password}")
    delete_password = get_password
'''


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "project", postgres=Postgres(host="db", user="elt"))


@pytest.fixture
def bare() -> dict[str, str]:
    """An environment in which keyring has no backend, whatever this machine has."""
    return {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


@pytest.fixture
def backends(tmp_path: Path) -> Path:
    folder = tmp_path / "backends"
    folder.mkdir()
    (folder / "ourkeyring.py").write_text(BACKEND)
    return folder


def using(backends: Path, name: str = "Kept", **more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(backends), "PYTHON_KEYRING_BACKEND": f"ourkeyring.{name}", **more}


def file_with(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# A secret


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2" and secret == Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}" + str(secret)


# The order


def test_each_place_is_asked_in_turn_and_the_first_one_wins(settings: Settings, backends: Path, tmp_path: Path) -> None:
    environ = using(backends)
    set_secret(settings, "keboola", "in-keyring", environ=environ)
    assert keboola_token(settings, environ).reveal() == "in-keyring"

    own = settings.state / "secrets" / "keboola_token"
    own.parent.mkdir(parents=True)
    file_with(own, "in-own-file\n")
    assert keboola_token(settings, environ).reveal() == "in-own-file"

    environ["KEBOOLA_TOKEN_FILE"] = file_with(tmp_path / "token", "in-file\n")
    assert keboola_token(settings, environ).reveal() == "in-file"

    environ["KEBOOLA_TOKEN"] = "in-environment"
    assert keboola_token(settings, environ).reveal() == "in-environment"

    given = Settings(root=settings.root, keboola_token=Secret("given"))
    assert keboola_token(given, environ).reveal() == "given"


def test_a_password_is_looked_up_like_a_token_but_for_its_user(
    settings: Settings, backends: Path, tmp_path: Path
) -> None:
    environ = using(backends)
    assert postgres_password(settings, "elt", environ) is None
    set_secret(settings, "postgres", "pass of elt", "elt", environ)
    set_secret(settings, "postgres", "of anna/b", "anna/b", environ)
    assert postgres_password(settings, "elt", environ).reveal() == "pass of elt"
    assert postgres_password(settings, None, environ).reveal() == "pass of elt"
    assert postgres_password(settings, "anna/b", environ).reveal() == "of anna/b"
    assert postgres_password(settings, "nobody", environ) is None

    environ["POSTGRES_PASSWORD_FILE"] = file_with(tmp_path / "password", "with blank and háček\r\n")
    assert postgres_password(settings, "elt", environ).reveal() == "with blank and háček"
    environ["POSTGRES_PASSWORD"] = "in environment"
    assert postgres_password(settings, "elt", environ).reveal() == "in environment"


def test_secrets_that_settings_bring_ask_nobody(settings: Settings, backends: Path) -> None:
    environ = using(backends, "Hangs", POSTGRES_PASSWORD="x")
    given = Settings(root=settings.root, postgres_password=Secret("given"))
    assert postgres_password(given, "elt", environ).reveal() == "given"
    embedded = Settings(root=settings.root, postgres=Postgres(embedded=True))
    assert postgres_password(embedded, "elt", environ) is None


def test_keyring_is_asked_once_for_any_number_of_connections(settings: Settings, backends: Path) -> None:
    environ = using(backends)
    threads = [threading.Thread(target=postgres_password, args=(settings, "elt", environ)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (backends / "asked").read_text() == "x"


def test_keyring_is_not_asked_where_the_environment_answers(settings: Settings, backends: Path) -> None:
    keboola_token(settings, using(backends, KEBOOLA_TOKEN="x"))
    assert not (backends / "asked").exists()


def test_an_empty_variable_is_an_unset_one(settings: Settings, bare: dict[str, str], tmp_path: Path) -> None:
    token = file_with(tmp_path / "token", TOKEN)
    environ = {**bare, "KEBOOLA_TOKEN": "", "KEBOOLA_TOKEN_FILE": token}
    assert keboola_token(settings, environ).reveal() == TOKEN
    with pytest.raises(CredentialError, match="KEBOOLA_TOKEN: empty"):
        keboola_token(settings, {**environ, "KEBOOLA_TOKEN_FILE": ""})


def test_a_missing_token_lists_each_place_tried_and_the_command(settings: Settings, bare: dict[str, str]) -> None:
    with pytest.raises(CredentialError) as caught:
        keboola_token(settings, bare)
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == [
        "there is no Keboola token. Tried:",
        "  KEBOOLA_TOKEN: not set",
        "  KEBOOLA_TOKEN_FILE: not set",
        f"  {settings.root}/.elt/secrets/keboola_token: no such file",
        "  keyring ('KEBOOLA', 'keboola'): no backend on this machine",
        "Set it with: python main.py credentials set keboola",
        "(cron cannot reach a desktop's keyring: let KEBOOLA_TOKEN_FILE in the crontab name a file with the token)",
    ]


@pytest.mark.parametrize(
    "backend, why",
    [
        ("ourkeyring.Kept", "no entry"),
        ("ourkeyring.Locked", "failed: RuntimeError: Failed to unlock the collection!"),
        ("ourkeyring.Prompts", "failed: OSError: [Errno 6] "),
        ("keyring.backends.null.Keyring", "no backend on this machine"),
        ("nonsense.Keyring", "failed: ModuleNotFoundError: No module named 'nonsense'"),
    ],
)
def test_whatever_keyring_does_the_list_says_what(settings: Settings, backends: Path, backend: str, why: str) -> None:
    environ = {**using(backends), "PYTHON_KEYRING_BACKEND": backend}
    with pytest.raises(CredentialError) as caught:
        keboola_token(settings, environ)
    line = next(line for line in str(caught.value).splitlines() if "keyring (" in line)
    assert line.startswith(f"  keyring ('KEBOOLA', 'keboola'): {why}")
    assert postgres_password(settings, "elt", environ) is None


def test_a_machine_without_the_keyring_package_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "keyring.py").write_text("raise ModuleNotFoundError(\"No module named 'keyring'\")")
    with pytest.raises(CredentialError, match="keyring .*: the package is not installed"):
        keboola_token(settings, {"PYTHONPATH": str(tmp_path)})


def test_a_keyring_that_hangs_is_ended_with_all_it_started(backends: Path) -> None:
    task = {"do": "get", "service": "KEBOOLA", "account": "keboola", "value": None}
    started = time.monotonic()
    assert ask_keyring(task, using(backends, "Hangs"), seconds=3) == "no answer within 3 s"
    with (backends / "held").open() as held:
        assert held.read() == "held, " * 2
        fcntl.flock(held, fcntl.LOCK_EX)  # waits until both are gone
    assert time.monotonic() - started < 20


def test_a_keyring_that_prompts_finds_no_terminal_although_we_have_one(backends: Path) -> None:
    """The whole of us runs on a terminal on which nobody types."""
    code = (
        "from lib.config.secrets import ask_keyring; import os\n"
        "task = {'do': 'get', 'service': 'x', 'account': 'y', 'value': None}\n"
        "print(os.isatty(0), ask_keyring(task, os.environ, seconds=60))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-c", code], using(backends, "Prompts"))
    said = b""
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:
        pass  # Linux: the other end is closed
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"True failed: OSError" in said and b"/dev/tty" in said


def test_a_keyring_py_in_the_working_directory_is_not_keyring(
    settings: Settings, backends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keyring.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CredentialError, match="keyring .*: no entry"):
        keboola_token(settings, using(backends))


def test_cron_without_home_terminal_or_environment_gets_the_list_and_no_traceback(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from lib.config.secrets import keboola_token\n"
        "from lib.errors import CredentialError\n"
        "from lib.config.settings import Settings\n"
        "try: keboola_token(Settings(root=Path('/nowhere')))\n"
        "except CredentialError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={}, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stderr == "" and "there is no Keboola token. Tried:" in done.stdout and "keyring (" in done.stdout


# Files


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\n", f"\ufeff{TOKEN}\n"])
def test_a_file_holds_one_line_with_or_without_its_end(
    settings: Settings, bare: dict[str, str], tmp_path: Path, content: str
) -> None:
    environ = {**bare, "KEBOOLA_TOKEN_FILE": file_with(tmp_path / "token", content)}
    (tmp_path / "token").chmod(0o644)  # as Docker's secrets are
    assert keboola_token(settings, environ).reveal() == TOKEN


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        (f"{TOKEN}\n\n", "the file must hold one line, the secret, and nothing else"),
        (f"{TOKEN}\nhunter3", "the file must hold one line"),
        ("x" * 70_000, "the file must hold one line"),
        (f"KEBOOLA_TOKEN= {TOKEN}", "a Keboola token has no blanks"),
        (f" {TOKEN}", "a Keboola token has no blanks"),
        (f"{TOKEN}é", "a Keboola token has no blanks, line breaks or letters beyond ASCII; copy it again"),
        (f"{TOKEN}\0", "a Keboola token has no blanks"),
        (b"\x7fELF\xff\xfehunter2", "is not a text file with one line"),
    ],
)
def test_a_file_that_is_no_secret_is_named_with_its_variable_and_never_shown(
    settings: Settings, bare: dict[str, str], tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = file_with(tmp_path / "token", content)
    with pytest.raises(CredentialError) as caught:
        keboola_token(settings, {**bare, "KEBOOLA_TOKEN_FILE": path})
    assert str(caught.value).startswith(f"KEBOOLA_TOKEN_FILE={path}: {message}")
    assert "hunter" not in str(caught.value)


def test_a_file_that_is_missing_a_folder_or_closed_is_an_error_and_no_reason_to_look_further(
    settings: Settings, backends: Path, tmp_path: Path
) -> None:
    environ = using(backends)
    set_secret(settings, "postgres", "x", "elt", environ)
    for path, message in (
        (tmp_path / "none", "there is no such file"),
        (backends / "ourkeyring.py" / "x", "there is no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        environ["POSTGRES_PASSWORD_FILE"] = str(path)
        with pytest.raises(CredentialError) as caught:
            postgres_password(settings, "elt", environ)
        assert str(caught.value) == f"POSTGRES_PASSWORD_FILE={path}: {message}"


def test_a_file_that_we_may_not_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    """Root may read everything, so root becomes nobody first."""
    path = file_with(tmp_path / "token", TOKEN)
    os.chmod(path, 0)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from lib.config.secrets import _read_file, _wanted\n"
        "from lib.config.settings import Settings\n"
        "wanted = _wanted('keboola', Settings(root=Path('/')), None, {})\n"
        f"file = os.open({str(tmp_path)!r}, os.O_RDONLY); os.fchdir(file)\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: _read_file(Path('token'), wanted, 'KEBOOLA_TOKEN_FILE=token')\n"
        "except Exception as error: print(error)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "KEBOOLA_TOKEN_FILE=token: cannot be read: Permission denied\n", done.stderr


def test_a_relative_path_begins_at_the_project_not_at_the_working_directory(
    settings: Settings, bare: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.root.mkdir()
    file_with(settings.root / "token", "right")
    file_with(tmp_path / "token", "wrong")
    monkeypatch.chdir(tmp_path)
    assert keboola_token(settings, {**bare, "KEBOOLA_TOKEN_FILE": "token"}).reveal() == "right"


@pytest.mark.parametrize("value", [f"{TOKEN}\n", f" {TOKEN}", "háček", "a\0b", "\udcff"])
def test_a_token_in_the_environment_that_cannot_be_one_is_refused_unseen(settings: Settings, value: str) -> None:
    with pytest.raises(CredentialError) as caught:
        keboola_token(settings, {"KEBOOLA_TOKEN": value})
    assert str(caught.value).startswith("KEBOOLA_TOKEN: a Keboola token has no blanks")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("value", ["two\nlines", "nul\0", "\udcff"])
def test_a_password_that_cannot_be_one_is_refused(settings: Settings, value: str) -> None:
    with pytest.raises(CredentialError, match="^POSTGRES_PASSWORD: a password is one line of text"):
        postgres_password(settings, "elt", {"POSTGRES_PASSWORD": value})


# Set, show, delete


def test_with_a_keyring_a_secret_goes_there_and_nowhere_else(settings: Settings, backends: Path) -> None:
    environ = using(backends)
    assert set_secret(settings, "keboola", TOKEN, environ=environ) == "keyring ('KEBOOLA', 'keboola')"
    assert keboola_token(settings, environ).reveal() == TOKEN
    assert not settings.state.exists()
    assert show_secret(settings, "keboola", environ=environ) == "from keyring ('KEBOOLA', 'keboola'): 815-4711-****"
    assert delete_secret(settings, "keboola", environ=environ) == ("keyring ('KEBOOLA', 'keboola')",)
    assert delete_secret(settings, "keboola", environ=environ) == ()
    with pytest.raises(CredentialError, match="there is no Keboola token"):
        show_secret(settings, "keboola", environ=environ)


def test_without_a_keyring_a_secret_goes_to_a_file_of_its_owner(settings: Settings, bare: dict[str, str]) -> None:
    path = settings.state / "secrets" / "keboola_token"
    before = os.umask(0)
    try:
        place = set_secret(settings, "keboola", TOKEN, environ=bare)
    finally:
        os.umask(before)
    assert place.startswith(f"{path}, which only its owner can read (keyring") and "no backend" in place
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert keboola_token(settings, bare).reveal() == TOKEN
    assert show_secret(settings, "keboola", environ=bare) == f"from {path}: 815-4711-****"
    set_secret(settings, "keboola", "another", environ=bare)
    assert keboola_token(settings, bare).reveal() == "another"
    assert show_secret(settings, "keboola", environ=bare) == f"from {path}: ****"
    assert [file.name for file in path.parent.iterdir()] == ["keboola_token"]
    assert delete_secret(settings, "keboola", environ=bare) == (str(path),)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("backend, why", [("Forgets", "no entry"), ("Locked", "failed")])
def test_a_keyring_that_does_not_keep_a_secret_is_not_believed(
    settings: Settings, backends: Path, backend: str, why: str
) -> None:
    environ = using(backends, backend)
    place = set_secret(settings, "keboola", TOKEN, environ=environ)
    assert place.endswith(f"which only its owner can read (keyring ('KEBOOLA', 'keboola'): {why})")
    assert keboola_token(settings, environ).reveal() == TOKEN


def test_the_secret_that_was_set_last_wins_wherever_it_went(
    settings: Settings, backends: Path, bare: dict[str, str]
) -> None:
    desktop = using(backends)
    set_secret(settings, "keboola", "first", environ=desktop)
    set_secret(settings, "keboola", "second", environ=bare)
    assert keboola_token(settings, desktop).reveal() == keboola_token(settings, bare).reveal() == "second"
    set_secret(settings, "keboola", "third", environ=desktop)
    assert keboola_token(settings, desktop).reveal() == "third"
    with pytest.raises(CredentialError):
        keboola_token(settings, bare)


def test_set_says_what_still_wins(settings: Settings, bare: dict[str, str], tmp_path: Path) -> None:
    place = set_secret(settings, "keboola", TOKEN, environ={**bare, "KEBOOLA_TOKEN": "x"})
    assert place.endswith("; but KEBOOLA_TOKEN is set here and wins")
    place = set_secret(settings, "postgres", "x", environ={**bare, "POSTGRES_PASSWORD_FILE": "x"})
    assert place.endswith("; but POSTGRES_PASSWORD_FILE is set here and wins")


def test_a_password_is_shown_by_its_place_alone(settings: Settings, backends: Path, bare: dict[str, str]) -> None:
    assert show_secret(settings, "postgres", environ=bare) == "none here: libpq looks at PGPASSWORD and .pgpass itself"
    embedded = Settings(root=settings.root, postgres=Postgres(embedded=True))
    assert show_secret(embedded, "postgres", environ=bare).startswith("none needed")
    set_secret(settings, "postgres", "hunter2", environ=using(backends))
    assert show_secret(settings, "postgres", environ=using(backends)) == "from keyring ('POSTGRES', 'elt')"


def test_delete_takes_the_file_and_the_entry(settings: Settings, backends: Path, bare: dict[str, str]) -> None:
    environ = using(backends)
    set_secret(settings, "postgres", "x", environ=environ)
    set_secret(settings, "postgres", "y", environ=bare)
    path = settings.state / "secrets" / "postgres_password.elt"
    assert delete_secret(settings, "postgres", environ=environ) == (str(path), "keyring ('POSTGRES', 'elt')")
    assert postgres_password(settings, "elt", environ) is None


def test_delete_admits_that_a_locked_keyring_may_still_hold_the_secret(settings: Settings, backends: Path) -> None:
    with pytest.raises(CredentialError, match="keyring .*: failed: RuntimeError: Failed to unlock"):
        delete_secret(settings, "keboola", environ=using(backends, "Locked"))


@pytest.mark.parametrize("name, value", [("keboola", ""), ("keboola", "a b"), ("postgres", ""), ("postgres", "a\nb")])
def test_what_cannot_be_a_secret_is_not_stored(settings: Settings, bare: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(CredentialError, match="^what was typed: a "):
        set_secret(settings, name, value, environ=bare)
    assert not settings.state.exists()


def test_a_folder_that_cannot_be_written_is_named(settings: Settings, bare: dict[str, str]) -> None:
    settings.root.mkdir()
    settings.state.write_text("in the way")
    with pytest.raises(CredentialError, match=r"\.elt/secrets/keboola_token cannot be written: "):
        set_secret(settings, "keboola", TOKEN, environ=bare)


def test_an_unknown_name_is_refused(settings: Settings, bare: dict[str, str]) -> None:
    with pytest.raises(CredentialError, match="no secret is named 'aws': keboola and postgres are"):
        show_secret(settings, "aws", environ=bare)


def test_the_postgres_user_is_the_one_that_libpq_would_take(tmp_path: Path, bare: dict[str, str]) -> None:
    def user(postgres: Postgres, **environ: str) -> str | None:
        return postgres_user(Settings(root=tmp_path, postgres=postgres), environ)

    assert user(Postgres(user="elt"), PGUSER="other") == "elt"
    assert user(Postgres(host="db"), PGUSER="other") == "other"
    assert user(Postgres(service="dwh")) is None and user(Postgres(), PGSERVICE="dwh") is None
    assert user(Postgres()) == subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()

    service = Settings(root=tmp_path, postgres=Postgres(service="dwh"))
    assert postgres_password(service, None, bare) is None
    assert postgres_password(service, None, {**bare, "POSTGRES_PASSWORD": "x"}).reveal() == "x"
    with pytest.raises(CredentialError, match="nobody says which PostgreSQL user it is"):
        set_secret(service, "postgres", "x", environ=bare)
