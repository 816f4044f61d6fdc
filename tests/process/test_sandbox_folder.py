"""python -m sandbox FOLDER, as a person and as a script start it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.extract.keboola import KeboolaExtractor
from tests.support import ROOT
from tests.support.extraction import Plain


@contextmanager
def start(*words: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(words[0])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def rows_at(url: str, token: str, environment: dict[str, str]) -> int | None:
    extractor = KeboolaExtractor(url, Plain(token), run_id="r", parallel=1, environ=environment)
    return extractor.table("in.c-shop.orders").rows


def test_the_settings_that_it_prints_reach_it_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "in.c-shop.orders.csv").write_text("id\n1\n2\n")
    with start(tmp_path) as sandbox:
        lines = [*iter(lambda: sandbox.stdout.readline().rstrip(), "Ctrl-C ends it.")]
        settings = tomllib.loads("\n".join(line for line in lines if re.match(r" +(\[|url)", line)))
        exports = dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("    export "))
        assert rows_at(settings["keboola"]["url"], exports.pop("KEBOOLA_TOKEN"), exports) == 2
        sandbox.send_signal(signal.SIGINT)
        output, errors = sandbox.communicate(timeout=10)
    assert (sandbox.returncode, output, errors) == (130, "", "error: stopped by Ctrl-C\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.c-shop.orders.csv"], "nothing is left behind"


def test_a_script_reads_one_line(tmp_path: Path) -> None:
    (tmp_path / "in.c-shop.orders.csv").write_text("id\n1\n")
    (tmp_path / "orders.csv").write_text("")
    with start(tmp_path, "--json") as sandbox:
        found = json.loads(sandbox.stdout.readline())
        assert found.keys() == {"url", "token", "environment"}
        assert rows_at(**found) == 1
        sandbox.terminate()
        output, errors = sandbox.communicate(timeout=10)
    assert (sandbox.returncode, output) == (143, "")
    assert errors.startswith("warning: orders.csv: the name must be") and errors.endswith("stopped by SIGTERM\n")


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    with start(tmp_path / "nowhere") as sandbox:
        _, errors = sandbox.communicate(timeout=10)
    assert (sandbox.returncode, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"error: {tmp_path}/nowhere is no folder")
