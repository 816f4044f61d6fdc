"""python -m sandbox FOLDER: serves your own CSV files as a local Keboola, until Ctrl-C."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lib.cli.arguments import HelpFormatter
from lib.cli.command_line import guarded

if TYPE_CHECKING:
    from sandbox.folder import FolderKeboola


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the folder and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="Serve a folder of CSV files as a local Keboola. in.c-shop.orders.csv is table in.c-shop.orders,"
        " and its first line names the columns. A file that changes is read again. Ctrl-C ends it.",
        epilog="example: python -m sandbox ~/tables",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--json", action="store_true", help="print one line with url, token and environment")
    given = parser.parse_args(arguments)
    return guarded(partial(_serve, given.folder, as_json=given.json))


def _serve(folder: Path, *, as_json: bool) -> int:
    from lib.cli.console import Console
    from lib.errors import SettingsError
    from lib.stop import StopSignal, run_stoppable
    from sandbox.folder import FolderKeboola

    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder: name one with files such as in.c-shop.orders.csv")
    csv.field_size_limit(1 << 30)
    console, stop = Console(), StopSignal()

    def work() -> int:
        with FolderKeboola(folder, (lambda line: None) if as_json else console.text, console.warn) as keboola:
            console.text(_as_json(keboola) if as_json else _to_paste(keboola, folder))
            while True:
                stop.pause(3600.0)

    return run_stoppable(work, stop)


def _as_json(keboola: FolderKeboola) -> str:
    return json.dumps({"url": keboola.url, "token": keboola.token, "environment": keboola.store_environment})


def _to_paste(keboola: FolderKeboola, folder: Path) -> str:
    """What connects a project to this Keboola."""
    variables = {"KEBOOLA_TOKEN": keboola.token, **keboola.store_environment}
    exports = "\n".join(f"    export {name}={shlex.quote(value)}" for name, value in variables.items())
    return (
        f"\nA local Keboola with the tables in {folder}. For elt_settings.toml:\n\n"
        f'    [keboola]\n    url = "{keboola.url}"\n\n'
        f"for the shell in which you load them:\n\n{exports}\n\nCtrl-C ends it."
    )


if __name__ == "__main__":
    sys.exit(main())
