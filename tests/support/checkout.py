"""A copy of this project in its own folder. Its scripts are run as cron or a person runs them."""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from sandbox.inventory import put_inventory
from sandbox.keboola_server import KeboolaServer
from tests.support import ROOT
from tests.support.databases import EmptyDatabase

#: tests must not use the keyring of the developer
NO_KEYRING = "keyring.backends.fail.Keyring"
TOKEN = "815-4711-aVerySecretSandboxToken"


@cache
def compile_once() -> None:
    """Compile the project's files, so that not every copy of them is compiled again."""
    for folder in ("lib", "sandbox"):
        compileall.compile_dir(ROOT / folder, quiet=2)


class Checkout:
    """The files of a clone that was used before, and processes in it with an empty environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        compile_once()
        # keep compiled files; skip those being written (x.pyc.123), because they may disappear
        left_out = shutil.ignore_patterns(".*", "*.pyc.*", "tests", "benchmarks")
        shutil.copytree(ROOT, folder, ignore=left_out)

    def settings(self, text: str) -> None:
        """Replace elt_settings.toml."""
        (self.folder / "elt_settings.toml").write_text(text, encoding="utf-8")

    def start(
        self,
        *words: str,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        flags: tuple[str, ...] = (),
        stdin: IO[str] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start one of the scripts as cron does: env -i, LANG=C, no HOME, no terminal, another working directory."""
        script, *arguments = words
        return subprocess.Popen(
            [sys.executable, *flags, str(self.folder / script), *arguments],
            env={"LANG": "C", "PYTHON_KEYRING_BACKEND": NO_KEYRING, **(environ or {})},
            cwd=cwd or "/",
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def run(self, *words: str, **how) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts to its end; stdout holds both streams."""
        with self.start(*words, **how) as process:
            output, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, output)


class Morning(Checkout):
    """A checkout set up for a real project: Keboola is the sandbox, PostgreSQL a fresh database."""

    def __init__(self, folder: Path, keboola: KeboolaServer, database: EmptyDatabase) -> None:
        super().__init__(folder)
        self.keboola = keboola
        self.database = database
        address = database.connect_args
        self.settings(
            f'[keboola]\nurl = "{keboola.url}"\n'
            f'[postgres]\nhost = "{address["host"]}"\nport = {address["port"]}\n'
            f'dbname = "{address["dbname"]}"\nuser = "{address["user"]}"\n'
        )
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.environ = {"KEBOOLA_TOKEN_FILE": str(token), **keboola.store_environment}

    def start(self, *words: str, environ: Mapping[str, str] | None = None, **how) -> subprocess.Popen[str]:
        return super().start(*words, environ={**self.environ, **(environ or {})}, **how)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh clone, with nothing set up."""
    return Checkout(tmp_path / "project")


@pytest.fixture
def morning(tmp_path: Path, database: EmptyDatabase) -> Iterator[Morning]:
    """A clone with settings, a token, the sample inventory in Keboola, and an empty database."""
    with KeboolaServer(token=TOKEN, polls=0) as keboola:
        put_inventory(keboola, day=1, odd_names=True)
        yield Morning(tmp_path / "project", keboola, database)
