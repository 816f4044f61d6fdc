"""The command `run`, also used by the two scripts elt_daily_load.py and elt_run_job.py.

The scripts import this module first. It imports the rest of lib inside the function, so that a missing package is also
reported as one line and not as a traceback.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lib.cli.arguments import how_to_type

if TYPE_CHECKING:
    from lib.config.settings import Settings


def run_jobs(
    given: argparse.Namespace,
    jobs: Sequence[str] = (),
    settings: Settings | None = None,
    *,
    is_preview: bool = False,
) -> int:
    """Run or preview jobs and return the exit code. Job names in the parsed arguments replace `jobs`.

    settings None: read elt_settings.toml of this project.
    """
    from lib.cli.console import Console
    from lib.cli.report import write_after_run
    from lib.config.settings import read_settings
    from lib.load.guards import Accepted
    from lib.postgres.connection import Database
    from lib.run.plan import make_plan, read_project
    from lib.run.preview import Preview
    from lib.run.runner import Options, Run
    from lib.stop import StopSignal, run_stoppable

    settings = settings or read_settings()
    jobs = given.jobs or jobs
    registry = read_project(settings.root)
    name = "preview" if is_preview else "run"
    words = [name, *jobs, *(["--full"] if given.full else []), *(["--date", f"{given.date}"] if given.date else [])]
    words += ["--accept-date"] if given.accept_date else []
    accepted = Accepted.parse(given.accept, given.accept_shrink, how_to_type(" ".join(words), settings))
    registry.check_names(accepted.jobs)
    plan = make_plan(registry, jobs)
    accepted.check_jobs(plan.loads)
    console = Console(quiet=given.quiet, zone=settings.zone)
    stop = StopSignal()
    preview = Preview(given.all, given.limit) if is_preview else None
    run = Run(
        plan,
        settings,
        Database(settings, stop),
        console,
        Options(
            given.wait,
            given.full,
            accepted,
            given.date,
            given.accept_date,
            command=how_to_type(name, settings),
            wait_for_flow=not (jobs or given.no_wait or is_preview),
            preview=preview,
        ),
    )
    result = run_stoppable(run.run, stop)
    if preview:
        if result.records:
            from lib.cli.preview import show_preview

            show_preview(console, preview)
        console.summary(name, result.records, result.error, result.unchanged_since, done="would be published")
    else:
        console.summary("run" if jobs else "daily load", result.records, result.error, result.unchanged_since)
        write_after_run(settings, console)
    return result.exit_code
