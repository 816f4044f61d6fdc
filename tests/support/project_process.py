"""Runs the project of a test in a separate process, as cron does, so that it can be killed or sent a signal.

The process itself is `project_child`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from threading import Condition

from lib.stop import start_thread
from tests.support import ROOT
from tests.support.databases import sql
from tests.support.project import Project

#: seconds after which a waiting test fails
PATIENCE = 60.0

LOCKS_OF_RUNS = """
    SELECT application_name, locktype, relation::regclass, mode, state, query
    FROM pg_locks
    JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND application_name LIKE 'elt %'
"""


@dataclass(frozen=True)
class Moment:
    """A moment in a run: this many seconds after it has printed this many lines.

    Seconds alone would be too early on a busy machine.
    """

    lines: int
    seconds: float


class ProjectProcess:
    """A running process. Use as a context manager, which always ends the process."""

    def __init__(
        self,
        project: Project,
        *arguments: str,
        hangup: signal.Handlers = signal.SIG_DFL,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """hangup: whether SIGHUP is ignored, as under nohup. limits: see `project_child`."""
        (project.root / "elt_jobs.json").write_text(json.dumps(project.registry, indent=2))
        about = {
            "root": str(project.root),
            "url": project.keboola.url,
            "token": project.keboola.token,
            "postgres": project.database.connect_args,
            "limits": dict(limits or {}),
        }
        environ = {**os.environ, **project.keboola.store_environment, "ELT_TEST_PROJECT": json.dumps(about)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.project_child", *arguments],
            env=environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
        )
        #: lines printed so far, with their times
        self.lines: list[str] = []
        self.times: list[float] = []
        self._news = Condition()
        self._ended = False
        self._reading: Future[None] = start_thread(self._read, "output of a run")

    def __enter__(self) -> ProjectProcess:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.result(PATIENCE)
        self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self.times.append(time.monotonic())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def run_until(self, moment: Moment) -> None:
        """Let it run until this moment, or until it ends."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended or len(self.lines) >= moment.lines, PATIENCE), self.output
        self.run_on(moment.seconds)

    def run_on(self, seconds: float) -> None:
        """Let it run for this time, or until it ends."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def send(self, signal_number: int) -> None:
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.exit_code()

    def exit_code(self) -> int:
        """Wait until it has ended and its output is read."""
        code = self._process.wait(PATIENCE)
        self._reading.result(PATIENCE)
        return code

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


def await_rows(project: Project, query: str, expected: bool = True, seconds: float = PATIENCE) -> None:
    """Repeat a query until it returns rows, or none. Raises AssertionError with the rows after a timeout."""
    deadline = time.monotonic() + seconds
    with closing(project.database.connect()) as connection:
        while bool(rows := sql(connection, query)) != expected:
            assert time.monotonic() < deadline, rows
            time.sleep(0.02)


def await_no_locks(project: Project) -> None:
    """Wait until the server has noticed that a run is dead, at most 2 s."""
    await_rows(project, LOCKS_OF_RUNS, expected=False, seconds=2.0)
