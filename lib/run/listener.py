"""Who a run tells what it does; `cli.console` is the one that prints it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from lib.load.exports import StagingProgress
from lib.transform.scripts import ScriptResult


class RunListener(Protocol):
    """Each method is told of one thing, as it happens."""

    def begin(self, run_id: int, target: str, source: str = "") -> None:
        """The run has a number; where rows come from and where they go."""

    def staging(self) -> AbstractContextManager[StagingProgress]:
        """Exports are staged while this is open."""

    def publishing(self) -> AbstractContextManager[Callable[[str], None]]:
        """The publish transaction runs while this is open; the function is told what begins: a script, a table."""

    def on_load(self, table: str, rows: int, seconds: float) -> None:
        """A bronze table was loaded."""

    def on_script(self, result: ScriptResult) -> None:
        """A script or a check has ended."""

    def line(self, text: str) -> None:
        """Something worth knowing."""

    def note(self, job: str, text: str) -> None:
        """Something about a job that a person should look at, though it did not fail."""

    def warn(self, text: str) -> None:
        """Something about the run that a person should look at."""
