"""Secrets: the files and variables that hold them, and that no output shows them."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.config.secret_value import Secret
from lib.config.secrets import (
    delete_secret,
    keboola_token,
    postgres_password,
    readable_files,
    set_secret,
    show_secret,
)
from lib.config.settings import Postgres, Settings
from lib.errors import CredentialError
from lib.stop import start_thread
from tests.support.keyrings import file_with

TOKEN = "815-4711-hunter2hunter2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "project", postgres=Postgres(host="db", user="elt"))


# A secret


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2" and secret == Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}" + str(secret)


# The order


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
        "(cron cannot reach a desktop's keyring: in the crontab, set KEBOOLA_TOKEN_FILE to a file with the token)",
    ]


# Files


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\n", f"\ufeff{TOKEN}\n"])
def test_a_file_holds_one_line_with_or_without_its_end(
    settings: Settings, bare: dict[str, str], tmp_path: Path, content: str
) -> None:
    environ = {**bare, "KEBOOLA_TOKEN_FILE": file_with(tmp_path / "token", content)}
    (tmp_path / "token").chmod(0o644)  # as in Docker's secrets
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
    with pytest.raises(CredentialError, match="^POSTGRES_PASSWORD: a password must be one line of text"):
        postgres_password(settings, "elt", {"POSTGRES_PASSWORD": value})


@pytest.mark.parametrize("name, ask", [("KEBOOLA_TOKEN", keboola_token), ("POSTGRES_PASSWORD", postgres_password)])
def test_a_pipe_that_nobody_writes_to_is_given_up_and_named(
    settings: Settings, bare: dict[str, str], tmp_path: Path, name: str, ask: Callable
) -> None:
    os.mkfifo(tmp_path / "pipe")
    words = f"{name}_FILE={tmp_path}/pipe: cannot be read: nothing came within 0.05 s"
    arguments = (settings,) if ask is keboola_token else (settings, "elt")
    with pytest.raises(CredentialError, match=words) as caught:
        ask(*arguments, {**bare, f"{name}_FILE": f"{tmp_path}/pipe"}, file_seconds=0.05)
    assert caught.value.exit_code == 2


def test_a_pipe_is_read_once_and_its_secret_kept(settings: Settings, bare: dict[str, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writing = start_thread(lambda: (tmp_path / "pipe").write_text(TOKEN), "who writes")
    environ = {**bare, "KEBOOLA_TOKEN_FILE": f"{tmp_path}/pipe"}
    assert keboola_token(settings, environ).reveal() == keboola_token(settings, environ).reveal() == TOKEN
    writing.result(10)


def test_a_file_that_others_can_read_is_named_with_the_command_that_closes_it(
    settings: Settings, bare: dict[str, str], tmp_path: Path
) -> None:
    set_secret(settings, "keboola", TOKEN, environ=bare)
    own = settings.state / "secrets" / "keboola_token"
    named = Path(file_with(tmp_path / "pass word", "hunter2"))
    named.chmod(0o600)
    environ = {**bare, "POSTGRES_PASSWORD_FILE": str(named), "KEBOOLA_TOKEN_FILE": str(tmp_path / "none")}
    assert readable_files(settings, environ) == []
    for path, mode in ((own, 0o640), (own, 0o604), (named, 0o644), (named, 0o622)):
        path.chmod(mode)
        (found,) = readable_files(settings, environ)
        words, _, command = found.partition(": ")
        assert words == f"{path} holds a secret, and other users can read or change it"
        assert shlex.split(command) == ["chmod", "600", str(path)]
        path.chmod(0o600)


# Where a secret came from


def test_a_secret_knows_its_place_and_how_to_correct_it_there(
    settings: Settings, bare: dict[str, str], tmp_path: Path
) -> None:
    set_secret(settings, "keboola", TOKEN, environ=bare)
    own = settings.state / "secrets" / "keboola_token"
    assert keboola_token(settings, bare).remedy == (
        f"The token came from {own}: to replace it, type `python main.py credentials set keboola`."
    )
    path = file_with(tmp_path / "token", TOKEN)
    no_effect = "correct it there, because `credentials set` has no effect while that variable is set."
    for variable, value, place in (
        ("KEBOOLA_TOKEN_FILE", path, f"KEBOOLA_TOKEN_FILE ({path})"),
        ("KEBOOLA_TOKEN", TOKEN, "KEBOOLA_TOKEN"),
    ):
        bare[variable] = value
        assert keboola_token(settings, bare).remedy == f"The token came from {place}: {no_effect}"


# Set, show, delete


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


def test_set_says_what_still_wins(settings: Settings, bare: dict[str, str], tmp_path: Path) -> None:
    place = set_secret(settings, "keboola", TOKEN, environ={**bare, "KEBOOLA_TOKEN": "x"})
    assert place.endswith("; but KEBOOLA_TOKEN is set here and takes precedence")
    place = set_secret(settings, "postgres", "x", environ={**bare, "POSTGRES_PASSWORD_FILE": "x"})
    assert place.endswith("; but POSTGRES_PASSWORD_FILE is set here and takes precedence")


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
    with pytest.raises(CredentialError, match="no secret is named 'aws'; there are keboola and postgres"):
        show_secret(settings, "aws", environ=bare)
