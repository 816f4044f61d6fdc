"""The console on a terminal, with a closed pipe, and in unusual environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import ROOT

# ---- streams --------------------------------------------------------------------------------------------------------

SPEAK = """
import sys
from lib.cli.console import Console
from lib.errors import LoadError
from lib.run.history import JobRecord
console = Console()
with console.staging() as progress:
    for job in ("abc", "d", "abc"):
        progress.exported(job, 2, None if job == "d" else 10)
        progress.copied(job, 5)
        console.line("größe [red]😀[/red] :smile: \\x1b[2J " + "x" * 200)
        console.note(job, "schön")
    progress.staged("abc", 10, 0.1)
console.summary("run", [JobRecord("abc", "failed", error="größe 😀\\nzwei")])
sys.exit(3)
""".encode("ascii", "backslashreplace").decode()


def child_environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.parametrize(
    "variables",
    [{"LANG": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_no_environment_makes_a_character_fail(variables: dict[str, str]) -> None:
    command = [sys.executable, "-c", SPEAK]
    done = subprocess.run(command, env=child_environment(**variables), capture_output=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert b"\x1b" not in done.stdout and b"Traceback" not in done.stderr
    assert b"[red]" in done.stdout and b":smile:" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        (b"run: 0 jobs published, 1 failed: abc (gr", b"run: 0 jobs published, 1 failed: abc (gr\\xf6")
    )


def test_a_closed_pipe_takes_the_log_and_not_the_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", SPEAK],
        env=child_environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 3
    lines = done.stderr.decode().splitlines()
    assert lines[:2] == ["abc: schön", "d: schön"]
    assert lines[-1].startswith("run: 0 jobs published, 1 failed: abc (größe 😀), ")


# ---- terminals ------------------------------------------------------------------------------------------------------


def on_terminal(code: str, *, stderr_too: bool = True, **variables: str) -> tuple[int, bytes, bytes]:
    """Exit code, output on the terminal, and output on a stderr that is not the terminal."""
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=child_environment(TERM="xterm-256color", COLUMNS="80", LINES="24", **variables),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal if stderr_too else subprocess.PIPE,
    )
    os.close(terminal)
    shown = b"".join(_read_all(master))
    os.close(master)
    said = process.stderr.read() if process.stderr else b""
    if process.stderr:
        process.stderr.close()
    return process.wait(60), shown, said


def _read_all(master: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # how Linux says that the other side is closed
            return
        if not data:
            return
        yield data


def plain(shown: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")


def test_a_terminal_shows_bars_and_whole_lines() -> None:
    code, shown, _ = on_terminal(SPEAK)
    text = plain(shown)
    assert code == 3
    assert "━" in text and "5 rows" in text
    assert f"größe [red]😀[/red] :smile: \\x1b[2J {'x' * 200}\n" in text
    assert "abc: schön\n" in text
    assert text.splitlines()[-1].startswith("run: 0 jobs published, 1 failed: abc (größe 😀), ")


def test_a_terminal_without_unicode_shows_bars_of_what_it_has() -> None:
    code, shown, _ = on_terminal(SPEAK, PYTHONIOENCODING="ascii")
    text = plain(shown)
    assert code == 3 and "Traceback" not in text
    assert "gr\\xf6\\xdfe [red]\\U0001f600[/red]" in text
    assert "---" in text


def test_a_job_that_is_exported_again_has_one_bar() -> None:
    _, shown, _ = on_terminal(SPEAK)
    # removed first, because on a busy machine the summary may say 0.1 s, too
    last_frames = plain(shown).partition("abc failed")[0].rpartition(" 0.1 s\n")[2]
    assert last_frames.count("abc ") == last_frames.count("d   ") > 0


def test_what_is_wrong_reaches_a_stderr_that_is_no_terminal_while_bars_are_shown() -> None:
    code, shown, said = on_terminal(SPEAK, stderr_too=False)
    assert code == 3
    assert said.decode().splitlines()[:3] == ["abc: schön", "d: schön", "abc: schön"]
    assert "schön" not in plain(shown)


WATCH = """
from lib.cli.console import Console
from lib.transform.scripts import ScriptResult
console = Console()
with console.publishing() as begins:
    begins("silver/stock_levels.sql")
    console.line("a word")
    console.on_script(ScriptResult("silver/stock_levels.sql", 1.0, (1, 0, 0, 0), changed_rows=1))
console.table(["sku", "name"], [["HW-1", "x" * 80], ["HW-2", "y"]])
"""


def test_a_terminal_shows_what_runs_and_since_when() -> None:
    _, shown, _ = on_terminal(WATCH)
    assert re.search(r"silver/stock_levels.sql  since \d\d:\d\d:\d\d\s+0:00:0\d", plain(shown))
    assert "script   silver/stock_levels.sql  +1 ~0 -0" in plain(shown)


def test_a_table_that_is_wider_than_the_terminal_is_shown_row_by_row() -> None:
    _, shown, _ = on_terminal(WATCH)
    assert plain(shown).endswith(f"sku   HW-1\nname  {'x' * 80}\n\nsku   HW-2\nname  y\n")


def test_quiet_shows_no_bar() -> None:
    _, shown, _ = on_terminal(SPEAK.replace("Console()", "Console(quiet=True)"))
    assert "━" not in plain(shown) and "\x1b" not in shown.decode()
