"""From a command line to an exit code: the one place where an error becomes text.

The scripts and main.py import this before anything else of lib, so it imports the rest late: a missing package or an
old Python is one line too.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.settings import Settings

OLDEST_PYTHON = (3, 11)
RUN_EPILOG = """examples:
  python main.py run                       every job, as elt_daily_load.py does
  python main.py run products              one job, and the transforms and checks of what depends on it
  python main.py run --accept products:shrink    load an export that is much smaller than the table, once

exit codes: 0 done, 1 a job failed, 2 registry, settings or usage, 75 another run is at work, 130/143 stopped"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps a description, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        kind = argparse.RawDescriptionHelpFormatter if "\n" in text else argparse.HelpFormatter
        return kind._fill_text(self, text, width, indent)


def guarded(work: Callable[[], int]) -> int:
    """The exit code of a command; whatever it raises on purpose is one message on stderr.

    A closed pipe (`| head`) ends it quietly.
    """
    if sys.platform == "win32":
        return fail(
            "Windows itself is not supported. In WSL it works: type `wsl --install`, then the same command there.", 2
        )
    if sys.version_info < OLDEST_PYTHON:
        running = ".".join(map(str, sys.version_info[:2]))
        return fail(f"this is Python {running}; 3.11 or newer is needed. Use .venv/bin/python, made by `make demo`.", 2)
    from lib.errors import EltError

    # at exit Python collects garbage once more, which takes 0.04 s after a run; frozen objects are left out
    atexit.register(gc.freeze)
    try:
        return work()
    except EltError as error:
        return fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("lib", "sandbox"):
            raise
        return fail(
            f"the package {error.name!r} is not installed for {sys.executable}."
            f" Use .venv/bin/python (made by `make demo`), or: {sys.executable} -m pip install -r requirements.txt",
            2,
        )
    except BrokenPipeError:
        # whoever read us has left; what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def fail(message: str, exit_code: int) -> int:
    """Say what went wrong and hand the exit code on."""
    from lib.console import Console

    Console().error(message)
    return exit_code


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What one may say about a run, the same behind every door."""
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="job names of elt_jobs.json")
    parser.add_argument("--quiet", action="store_true", help="print only what is wrong")
    parser.add_argument("--wait", action="store_true", help="queue behind a run that is at work, instead of exit 75")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="JOB:GUARD",
        help="let this job's load pass this once although a guard speaks: missing (a column), shrink, empty or count"
        " (of rows); what a guard says names the command",
    )
    parser.add_argument(
        "--accept-shrink",
        action="append",
        default=[],
        metavar="JOB",
        help="the same as --accept JOB:shrink --accept JOB:empty",
    )
    parser.add_argument(
        "--date",
        type=_past_date,
        metavar="YYYY-MM-DD",
        help="the day that the rows belong to, for a backfill (default: today in the settings' time zone)",
    )


def _past_date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write it as 2026-01-31") from None
    if day > date.today() + timedelta(days=1):
        raise argparse.ArgumentTypeError(f"{text} has not come yet")
    return day


def run_job(jobs: Sequence[str], arguments: Sequence[str] | None = None) -> int:
    """Run the named jobs (none: all of them) and return the exit code.

    arguments are those of the command line, whose job names win over `jobs`.
    """
    parser = argparse.ArgumentParser(
        description="Run the jobs that the script lists, or those named here.",
        epilog="example: python elt_run_job.py products --wait",
    )
    add_run_arguments(parser)
    given = parser.parse_args(arguments)
    return guarded(lambda: run_arguments(given, jobs))


def run_arguments(given: argparse.Namespace, jobs: Sequence[str] = ()) -> int:
    """Run what parsed arguments ask for against this project's settings."""
    from lib.settings import read_settings

    return run_project(read_settings(), given.jobs or jobs, given)


def command(name: str, settings: Settings) -> str:
    """How to type a command here, for the demo or the project."""
    return f"{_python()} main.py {'demo ' if settings.state_folder != '.elt' else ''}{name}"


def _python() -> str:
    """The Python that runs now, as short as it can be typed here."""
    import shutil

    inside = os.path.relpath(sys.executable)
    if not inside.startswith(".."):
        return inside
    return "python" if shutil.which("python") == sys.executable else sys.executable


def run_project(settings: Settings, jobs: Sequence[str], given: argparse.Namespace) -> int:
    """Run jobs of a project. Returns the exit code."""
    from lib.console import Console
    from lib.guards import Accepted
    from lib.plan import make_plan, open_database, read_project
    from lib.runner import Options, Run
    from lib.stop import run_stoppable

    registry = read_project(settings.root)
    words = ["run", *jobs, *(["--date", f"{given.date}"] if given.date else [])]
    accepted = Accepted.parse(given.accept, given.accept_shrink, command(" ".join(words), settings))
    registry.check_names(accepted.jobs)
    plan = make_plan(registry, jobs)
    accepted.check_jobs(plan.loads)
    console = Console(quiet=given.quiet, zone=settings.zone)
    options = Options(given.wait, accepted, given.date)
    result = run_stoppable(lambda stop: Run(plan, settings, open_database(settings, stop), console, options).run())
    console.summary("run" if jobs else "daily load", result.records, result.error)
    return result.exit_code
