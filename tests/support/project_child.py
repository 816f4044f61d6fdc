"""The child of `project_process`: finds its project in ELT_TEST_PROJECT, and then does what the daily load does."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

# what the daily load imports when it begins is there before the child says that it is ready
import lib.extract.keboola
import lib.run.runner  # noqa: F401
from lib.cli.arguments import run_parser
from lib.cli.command_line import guarded
from lib.cli.run import run_jobs
from lib.config.secret_value import Secret
from lib.config.settings import Postgres, Settings

#: the first line of the child, once all is imported
READY = "ready"


def main() -> int:
    """The child: this project's settings instead of elt_settings.toml, and all else as elt_daily_load.py."""
    about = json.loads(os.environ["ELT_TEST_PROJECT"])
    postgres = Postgres(**{**about["postgres"], "port": int(about["postgres"]["port"])})
    token = Secret(about["token"])
    settings = Settings(Path(about["root"]), about["url"], postgres, parallel=2, keboola_token=token)
    print(READY, flush=True)
    return guarded(partial(run_jobs, run_parser().parse_args(), settings=settings))


if __name__ == "__main__":
    sys.exit(main())
