"""The command `report`: writes the page."""

from __future__ import annotations

from pathlib import Path

from lib.cli.console import Console
from lib.config.settings import Settings
from lib.errors import EltError, SettingsError
from lib.postgres.connection import Database
from lib.run.plan import read_project
from lib.stop import StopSignal, run_stoppable


def report(settings: Settings, console: Console, output: str | None = None) -> int:
    """Write the page and print its path. Returns 0. Raises EltError; an old page then stays."""
    path, unanswered = write(settings, output)
    for text in unanswered:
        console.warn(text)
    console.text(f"page        {path}")
    return 0


def write(settings: Settings, output: str | None = None) -> tuple[Path, list[str]]:
    """Write the page to `output`, by default report.html in the project's state folder.

    Returns its path, and what could not be answered. Ctrl-C and SIGTERM end it; an old page then stays.
    """
    if output == "":
        raise SettingsError("--output needs the name of a file")
    try:
        from lib.report.page import write_page
    except ModuleNotFoundError as error:
        raise SettingsError(lacks_package(error.name)) from None
    path = Path(output).absolute() if output else settings.state / "report.html"
    if not output:
        settings.state.mkdir(parents=True, exist_ok=True)
    stop = StopSignal()
    registry, database = read_project(settings.root), Database(settings, stop)
    try:
        return path, run_stoppable(lambda: write_page(database, registry, path), stop)
    except EltError:
        raise
    except Exception as error:  # a template runs any expression, and a fault of the page is none of the load
        raise SettingsError(f"{settings.root / 'report'}: {type(error).__name__}: {error}") from None


def lacks_package(name: str | None) -> str:
    """What to say if one of the page's packages is not installed."""
    return f"the page needs the package {name!r}: python -m pip install -r requirements-report.txt"


def write_after_run(settings: Settings, console: Console) -> None:
    """Write the page if `[run] report = true`. A failure is only a warning: it does not change the run's result."""
    if settings.report:
        try:
            for text in write(settings)[1]:
                console.warn(text)
        except EltError as error:
            console.warn(f"the page was not written: {error}")
