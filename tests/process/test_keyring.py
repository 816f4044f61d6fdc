"""Secrets in keyring: the order of places, storing and deleting, and that nothing prompts or hangs.

It is the real keyring in a separate process, with a test backend that keeps a JSON file.
"""

from __future__ import annotations

import fcntl
import os
import pty
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
from tests.support import ROOT
from tests.support.keyrings import file_with, using

TOKEN = "815-4711-hunter2hunter2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "project", postgres=Postgres(host="db", user="elt"))


# The order


def test_each_place_is_asked_in_turn_and_the_first_one_wins(settings: Settings, backends: Path, tmp_path: Path) -> None:
    environ = using(backends)
    set_secret(settings, "keboola", "in-keyring", environ=environ)
    assert keboola_token(settings, environ).reveal() == "in-keyring"
    assert keboola_token(settings, environ).remedy.startswith(
        "The token came from keyring ('KEBOOLA', 'keboola'): to re"
    )

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
        fcntl.flock(held, fcntl.LOCK_EX)  # wait until both have ended
    assert time.monotonic() - started < 20


def test_a_keyring_that_prompts_finds_no_terminal_although_we_have_one(backends: Path) -> None:
    """The program runs on a terminal where nobody types."""
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


def test_a_pipe_that_nobody_writes_to_does_not_hold_up_the_end_of_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = (
        "from pathlib import Path; from lib.config.secrets import keboola_token\n"
        "from lib.config.settings import Settings\n"
        "keboola_token(Settings(root=Path('/nowhere')), {'KEBOOLA_TOKEN_FILE': 'PIPE'}, file_seconds=0.05)"
    ).replace("PIPE", str(tmp_path / "pipe"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert f"KEBOOLA_TOKEN_FILE={tmp_path}/pipe: cannot be read" in done.stderr


# Files


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
    """Root may read every file, so root becomes user nobody first."""
    path = file_with(tmp_path / "token", TOKEN)
    os.chmod(path, 0)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from lib.config.secrets import keboola_token\n"
        "from lib.config.settings import Settings\n"
        f"file = os.open({str(tmp_path)!r}, os.O_RDONLY); os.fchdir(file)\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: keboola_token(Settings(root=Path()), {'KEBOOLA_TOKEN_FILE': 'token'})\n"
        "except Exception as error: print(error)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "KEBOOLA_TOKEN_FILE=token: cannot be read: Permission denied\n", done.stderr


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
    with pytest.raises(CredentialError, match="the PostgreSQL user is not known"):
        set_secret(service, "postgres", "x", environ=bare)
