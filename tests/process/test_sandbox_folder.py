"""python -m sandbox FOLDER, as a person and as a script start it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from lib.extract.keboola import KeboolaExtractor
from sandbox import __main__ as sandbox_main
from tests.support import ROOT
from tests.support.extraction import Plain


@contextmanager
def start(*words: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": f"{words[0]}/.."},
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "in.c-shop.orders.csv").write_text("id\n1\n2\n")
    return folder


def test_the_settings_that_it_prints_reach_it_until_ctrl_c_and_at_the_next_start(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        with start(folder, "--port", port) as sandbox:
            lines = [*takewhile(lambda line: line != "Ctrl-C ends it.", map(str.rstrip, sandbox.stdout))]
            sections = f"[keboola]\n{line_of(lines, 'url')}\n[postgres]\n{line_of(lines, 'embedded')}\n"
            settings = tomllib.loads(sections)
            exports = dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("    export "))
            assert settings["keboola"]["url"] == f"http://127.0.0.1:{port}"
            assert rows_at(settings["keboola"]["url"], exports.pop("KEBOOLA_TOKEN"), exports) == 2
            sandbox.send_signal(signal.SIGINT)
            output, errors = sandbox.communicate(timeout=10)
        assert (sandbox.returncode, output, errors) == (130, "", "")
    assert [path.name for path in folder.parent.iterdir()] == ["tables"], "nothing is left behind"


def line_of(lines: list[str], key: str) -> str:
    (line,) = (line for line in lines if line.startswith(f"    {key} = "))
    return line


def test_a_port_that_is_taken_is_named_and_without_one_a_free_one_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(folder, "--port", port) as sandbox:
            _, errors = sandbox.communicate(timeout=10)
        assert (sandbox.returncode, errors.count("\n")) == (2, 1)
        assert errors.startswith(f"error: port {port} cannot be used: Address already in use. Choose another")
        monkeypatch.setattr(sandbox_main, "PORT", port)
        with sandbox_main._listen(folder, None, print, print) as keboola:
            assert keboola.url != f"http://127.0.0.1:{port}"


def test_a_script_reads_one_line(folder: Path) -> None:
    (folder / "orders.csv").write_text("")
    with start(folder, "--json") as sandbox:
        found = json.loads(sandbox.stdout.readline())
        assert found.keys() == {"url", "token", "environment"}
        assert rows_at(**found) == 2
        sandbox.terminate()
        output, errors = sandbox.communicate(timeout=10)
    assert (sandbox.returncode, output) == (143, "")
    assert errors.startswith("warning: orders.csv: the name must be") and errors.endswith("stopped by SIGTERM\n")


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    with start(tmp_path / "nowhere") as sandbox:
        _, errors = sandbox.communicate(timeout=10)
    assert (sandbox.returncode, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"error: {tmp_path}/nowhere is no folder")


def test_an_empty_folder_is_told(folder: Path) -> None:
    (folder / "in.c-shop.orders.csv").unlink()
    with start(folder, "--json") as sandbox:
        sandbox.stdout.readline()
        sandbox.terminate()
        _, errors = sandbox.communicate(timeout=10)
    assert errors.startswith(f"warning: {folder} holds no table yet: put a file such as in.c-shop.orders.csv there\n")
