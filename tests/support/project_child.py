"""The child of `project_process`: reads its project from ELT_TEST_PROJECT and runs the daily load."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

# import what the daily load needs, before the child reports that it is ready
import lib.extract.keboola
import lib.run.runner  # noqa: F401
from lib.cli.arguments import run_parser
from lib.cli.command_line import guarded, leave
from lib.cli.run import run_jobs
from lib.config.secret_value import Secret
from lib.config.settings import Postgres, Settings

#: the first line of the child, after all imports
READY = "ready"


def main() -> int:
    """Do what elt_daily_load.py does, with the settings of this project."""
    about = json.loads(os.environ["ELT_TEST_PROJECT"])
    postgres = Postgres(**{**about["postgres"], "port": int(about["postgres"]["port"])})
    token = Secret(about["token"])
    settings = Settings(Path(about["root"]), about["url"], postgres, parallel=2, keboola_token=token)
    print(READY, flush=True)
    return guarded(partial(run_jobs, run_parser().parse_args(), settings=settings))


if __name__ == "__main__":
    leave(main())
