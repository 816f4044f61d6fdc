"""Closed stdout, stderr or both, or a full disk under them: no traceback, the same exit code, every run with an end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.checkout import NO_KEYRING, Checkout, Morning

CLOSED = ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"]


def code_of(checkout: Checkout, words: Sequence[str], how: str) -> int:
    """The exit code of a command whose streams a shell closes. Fails if one that is open shows a traceback."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {how}', "sh", sys.executable, checkout.folder / words[0], *words[1:]],
        env={"LANG": "C", "PYTHON_KEYRING_BACKEND": NO_KEYRING, **getattr(checkout, "environ", {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout and "Exception ignored" not in done.stderr, done.stderr
    return done.returncode


def test_a_run_goes_on_without_its_streams(morning: Morning) -> None:
    registry = json.loads((morning.folder / "elt_jobs.json").read_text())
    registry["products"]["checks"] = [{"script": "checks/warns.sql", "on_failure": "warn"}]
    (morning.folder / "elt_jobs.json").write_text(json.dumps(registry))
    (morning.folder / "sql_scripts/checks/warns.sql").write_text("SELECT 1 AS wrong;")
    assert code_of(morning, ["main.py", "run", "--quiet"], ">&- 2>&-") == 0
    assert morning.database.sql("SELECT status FROM elt.runs") == [("done",)]


@pytest.mark.parametrize(
    "words, code",
    [(["main.py", "check"], 2), (["elt_run_job.py", "--help"], 0), (["main.py", "credentials", "show"], 2)],
)
def test_commands_keep_their_exit_code_without_their_streams(checkout: Checkout, words: list[str], code: int) -> None:
    assert [code_of(checkout, words, how) for how in CLOSED] == [code, code]


@pytest.mark.long
@pytest.mark.parametrize("how", CLOSED)
def test_every_command_keeps_its_exit_code_without_its_streams(morning: Morning, how: str) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    for words in (
        *(["main.py", *more] for more in ([], ["--help"], ["nonsense"], ["check"], ["check", "--online"], ["status"])),
        *(["main.py", *more] for more in (["report"], ["stop"], ["add"], ["remove", "x"], ["psql", "-c", "SELECT 1"])),
        *(["main.py", *more] for more in (["credentials", "show"], ["check", "--as-cron"], ["run", "--quiet"])),
        *(["elt_run_job.py", *more] for more in ([], ["--help"], ["--no"])),
    ):
        expected = 1 if words[-1] == "SELECT 1" and "/dev/full" in how else morning.run(*words).returncode
        assert code_of(morning, words, how) == expected, words
    assert set(morning.database.sql("SELECT status FROM elt.runs")) == {("done",)}
