"""check --as-cron: what works in a shell and would fail at six in the morning."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.cli import as_cron
from lib.config.settings import Settings
from lib.errors import SettingsError
from tests.support.checkout import NO_KEYRING, Morning


@pytest.fixture
def crontab(morning: Morning, tmp_path: Path) -> Path:
    """A crontab with all that a run of the sandbox needs."""
    file = tmp_path / "crontab"
    lines = [f'{name} = "{value}"' for name, value in morning.environ.items()]
    file.write_text("# a comment = no variable\n" + "\n".join([*lines, f"PYTHON_KEYRING_BACKEND={NO_KEYRING}", ""]))
    return file


def test_what_only_this_shell_has_is_found_and_a_crontab_that_has_it_is_fine(morning: Morning, crontab: Path) -> None:
    shell = {"HTTPS_PROXY": "http://user:secret@127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
    found = morning.run("main.py", "check", "--as-cron", environ=shell)
    assert found.returncode == 2
    assert "error: there is no Keboola token. Tried:" in found.stdout
    for name in ("KEBOOLA_TOKEN_FILE", "HTTPS_PROXY", "NO_PROXY"):
        assert f"warning: {name} is set in this shell, and is not set in cron: if a run needs it" in found.stdout
    assert "secret" not in found.stdout.replace("secrets", "")

    well = morning.run("main.py", "check", "--as-cron", "--crontab", str(crontab))
    assert well.returncode == 0, well.stdout
    assert "all is well" in well.stdout and "warning" not in well.stdout


def test_the_printed_line_loads(morning: Morning, crontab: Path) -> None:
    printed = morning.run("main.py", "check", "--as-cron", "--crontab", str(crontab)).stdout
    shell, _, line = printed.split("\n\n")[-1].strip().splitlines()
    command = re.fullmatch(r"0 6 \* \* \*  (.*)", line)
    assert command
    environ = as_cron.cron_environment() | as_cron.read_variables(crontab)
    program = [shell.removeprefix("SHELL="), "-c", command[1].replace("\\%", "%")]
    for exit_code in (0, 1):
        done = subprocess.run(program, env=environ, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert done.stdout == (morning.folder / "elt.log").read_text()
        morning.keboola.delete_table("in.c-interview_de.products")
    assert "1 failed: products" in done.stdout


def test_variables_of_a_crontab_are_read_as_cron_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "crontab"
    file.write_text('A=1\n B = two words \n"C"=\'q\'\n#D=4\n0 6 * * *  E=5 run\nF=$HOME\nG="a\n')
    assert as_cron.read_variables(file) == {"A": "1", "B": "two words", "C": "q", "F": "$HOME", "G": '"a'}
    with pytest.raises(SettingsError, match="nowhere cannot be read: No such file"):
        as_cron.read_variables(tmp_path / "nowhere")


def places(settings: Settings) -> Iterator[str]:
    return as_cron._of_places(settings, {"LOGNAME": "cron"})


def test_a_place_without_room_or_right_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path)
    assert [*places(settings)] == []
    monkeypatch.setattr(as_cron, "ROOM", 1 << 60)
    assert any(
        re.search(r"only [\d,]+ MB are free there \(the log elt.log\): make room", text) for text in places(settings)
    )
    (tmp_path / "file").write_text("")
    assert "cron cannot write there" in next(places(Settings(tmp_path / "file" / "project")))


def test_the_line_fits_odd_folders() -> None:
    line = as_cron.crontab_lines(Settings(Path("/srv/100% ours")), {"LOGNAME": "elt", "PATH": "/nowhere"})
    assert line.startswith("SHELL=/bin/sh\nMAILTO=elt\n0 6 * * *  cd '/srv/100\\% ours' && ")
    assert "pipefail" not in line and "tee" not in line, "a shell without pipefail would lose the exit code"
