"""The interface through which a run reports what it does. `cli.console` implements it and prints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from lib.load.exports import StagingProgress
from lib.transform.scripts import ScriptResult


class RunListener(Protocol):
    """Each method is called when the event happens."""

    def begin(self, run_id: int, target: str, source: str = "") -> None:
        """The run has its number. target: the database; source: where rows come from, empty if nothing is loaded."""

    def staging(self) -> AbstractContextManager[StagingProgress]:
        """Open while exports are staged. The value receives their progress."""

    def publishing(self) -> AbstractContextManager[Callable[[str], None]]:
        """Open while the publish transaction runs. The value is called with each script or table when it begins."""

    def on_load(self, table: str, rows: int, seconds: float) -> None:
        """A bronze table was loaded."""

    def on_script(self, result: ScriptResult) -> None:
        """A script or a check has ended."""

    def line(self, text: str) -> None:
        """Information about the progress of the run."""

    def note(self, job: str, text: str) -> None:
        """A warning about a job that did not fail."""

    def warn(self, text: str) -> None:
        """A warning about the run."""
