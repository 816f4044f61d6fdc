"""The command line with every command. Without one it shows what is set up and how the last run ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from lib.cli.arguments import main_parser, split_psql
from lib.cli.command_line import guarded, leave, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return guarded(partial(_main, arguments))


def _main(arguments: Sequence[str] | None) -> int:
    typed, of_psql = split_psql(list(sys.argv[1:] if arguments is None else arguments))
    given = main_parser().parse_args(typed)
    given.arguments = of_psql
    if given.command == "demo":
        from sandbox.bootstrap import ensure_packages

        ensure_packages()
        from sandbox.demo import run_demo

        return run_demo(given)
    from lib.config.settings import read_settings

    return run_command(given.command, given, read_settings())


if __name__ == "__main__":
    leave(main())
