"""Runs a command and returns its exit code. Every error is turned into its message here.

The scripts and main.py import this module before anything else of lib. It imports the rest inside functions, so that a
missing package or an old Python is also reported as one line and not as a traceback.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from lib.cli.arguments import run_parser
from lib.cli.run import run_jobs
from lib.cli.streams import flush_streams, open_closed_streams, silence

if TYPE_CHECKING:
    from lib.config.settings import Settings

OLDEST_PYTHON = (3, 11)


def guarded(work: Callable[..., int], parse: Callable[[], argparse.Namespace] | None = None) -> int:
    """Run a command and return its exit code. An EltError is printed as one message on stderr.

    parse: reads the command line, which is what work gets.
    A closed pipe (`| head`) ends the command without a message. Closed streams change no exit code.
    """
    open_closed_streams()
    if sys.platform == "win32":
        return fail(
            "Windows itself is not supported. In WSL it works: type `wsl --install`, then the same command there.", 2
        )
    if sys.version_info < OLDEST_PYTHON:
        running = ".".join(map(str, sys.version_info[:2]))
        return fail(f"this is Python {running}; 3.11 or newer is needed. Use .venv/bin/python, made by `make demo`.", 2)
    from lib.errors import EltError, limit_reached

    try:
        return work(parse()) if parse else work()
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
    except (OSError, RuntimeError) as error:
        if limit := limit_reached(error):
            return fail(str(limit), limit.exit_code)
        if not isinstance(error, BrokenPipeError):
            raise
        # the reader has closed the pipe; redirect stdout, so that flushing its buffer at exit does not raise again
        silence(sys.stdout)
        return 0
    except KeyboardInterrupt:
        return fail("stopped by Ctrl-C", 130)
    finally:
        flush_streams()


def leave(exit_code: int) -> NoReturn:
    """End the process with this exit code.

    A thread that was left behind may be inside DuckDB or libpq. If Python ended around it, it would abort the process.
    """
    if all(thread is threading.main_thread() or not thread.daemon for thread in threading.enumerate()):
        sys.exit(exit_code)
    atexit._run_exitfuncs()  # temporary folders are removed
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def fail(message: str, exit_code: int) -> int:
    """Print an error message and return the exit code."""
    from lib.cli.console import Console

    Console().error(message)
    return exit_code


def run_job(jobs: Sequence[str], arguments: Sequence[str] | None = None) -> int:
    """Run the named jobs (none: all jobs) and return the exit code.

    arguments: the command line's, by default sys.argv. Job names in it replace `jobs`.
    """
    return guarded(partial(run_jobs, jobs=jobs), partial(run_parser(jobs).parse_args, arguments))


def run_command(name: str | None, given: argparse.Namespace, settings: Settings) -> int:
    """Run one command of main.py with these settings and return its exit code."""
    from lib.cli import add, as_cron, changes, check, credentials, overview, psql, report, status, stop_server, undo
    from lib.cli.console import Console

    console = Console(zone=settings.zone)
    commands: dict[str | None, Callable[[], int]] = {
        None: lambda: overview.overview(settings, console),
        "run": lambda: run_jobs(given, settings=settings),
        "preview": lambda: run_jobs(given, settings=settings, is_preview=True),
        "check": lambda: (
            as_cron.check_as_cron(settings, console, given.crontab, os.environ)
            if given.as_cron or given.crontab
            else check.check(settings, console, online=given.online)
        ),
        "status": lambda: status.status(settings, console, runs=given.runs),
        "changes": lambda: changes.changes(settings, console, given),
        "undo": lambda: undo.undo(settings, console, given.leave, is_sure=given.yes),
        "report": lambda: report.report(settings, console, given.output),
        "add": lambda: add.add(settings, console, given),
        "remove": lambda: add.remove(settings, console, given.job, is_sure=given.yes),
        "credentials": lambda: credentials.credentials(settings, console, given.action, given.name),
        "psql": lambda: psql.psql(settings, given.arguments),
        "stop": lambda: stop_server.stop_server(settings, console),
    }
    return commands[name]()
