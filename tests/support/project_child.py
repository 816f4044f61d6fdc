"""The child of `project_process`: reads its project from ELT_TEST_PROJECT, and runs a load, `preview` or `undo`."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from functools import partial
from pathlib import Path

# import what the daily load needs, before the child reports that it is ready
import lib.extract.keboola
import lib.run.runner  # noqa: F401
from lib.cli.arguments import main_parser, run_parser
from lib.cli.command_line import guarded, leave
from lib.cli.console import Console
from lib.cli.run import run_jobs
from lib.cli.undo import undo
from lib.config.secret_value import Secret
from lib.config.settings import Postgres, Settings

#: the first line of the child, after all imports
READY = "ready"
#: bytes of a thread's stack, more than everything else of a run together
STACK = 8 << 30


def limit(files: int = 0, threads: int = 0) -> None:
    """Let this process open so many more files, or start so many more threads. 0: as many as it likes."""
    if files:
        highest = max(map(int, os.listdir("/dev/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + files, highest + files))
    if threads:  # each reserves a stack that is large enough to count
        threading.stack_size(STACK)
        (pages,) = Path("/proc/self/statm").read_text().split()[:1]
        room = int(pages) * resource.getpagesize() + threads * STACK + STACK // 2
        resource.setrlimit(resource.RLIMIT_AS, (room, room))


def main() -> int:
    """Do what elt_daily_load.py, `main.py preview` or `main.py undo --yes` does, with the settings of this project."""
    about = json.loads(os.environ["ELT_TEST_PROJECT"])
    postgres = Postgres(**{**about["postgres"], "port": int(about["postgres"]["port"])})
    token = Secret(about["token"])
    settings = Settings(Path(about["root"]), about["url"], postgres, parallel=2, keboola_token=token)
    limit(**about["limits"])
    print(READY, flush=True)
    if sys.argv[1:] == ["undo"]:
        return guarded(lambda: undo(settings, Console(), [], is_sure=True))
    if sys.argv[1:2] == ["preview"]:
        return guarded(partial(run_jobs, main_parser().parse_args(), settings=settings, is_preview=True))
    return guarded(partial(run_jobs, run_parser().parse_args(), settings=settings))


if __name__ == "__main__":
    leave(main())
