"""python -m sandbox FOLDER: serves your own CSV files as a local Keboola, until Ctrl-C."""

from __future__ import annotations

import argparse
import csv
import errno
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lib.cli.arguments import HelpFormatter
from lib.cli.command_line import guarded

if TYPE_CHECKING:
    from sandbox.folder import FolderKeboola

#: the port of each start, so that the settings of the last one stay true
PORT = 8817


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
    parser.add_argument(
        "--port", metavar="N", type=_port, help=f"where it listens (default: {PORT}; any free one if that is taken)"
    )
    parser.add_argument("--json", action="store_true", help="print one line with url, token and environment")
    given = parser.parse_args(arguments)
    return guarded(partial(_serve, given.folder, given.port, as_json=given.json))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: write 1 to 65535")
    return int(text)


def _serve(folder: Path, port: int | None, *, as_json: bool) -> int:
    from lib.cli.console import Console
    from lib.errors import Cancelled, SettingsError
    from lib.stop import StopSignal, run_stoppable

    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder: name one with files such as in.c-shop.orders.csv")
    csv.field_size_limit(1 << 30)
    console, stop = Console(), StopSignal()

    say = (lambda line: None) if as_json else console.text

    def work() -> int:
        with _listen(folder, port, say, console.warn) as keboola:
            if keboola.is_empty:
                console.warn(f"{folder} holds no table yet: put a file such as in.c-shop.orders.csv there")
            console.text(_as_json(keboola) if as_json else _to_paste(keboola, folder))
            while True:
                stop.pause(3600.0)

    try:
        return run_stoppable(work, stop)
    except Cancelled as error:
        if error.exit_code == 128 + signal.SIGINT:  # the end that was asked for
            return error.exit_code
        raise


def _listen(
    folder: Path, port: int | None, say: Callable[[str], None], complain: Callable[[str], None]
) -> FolderKeboola:
    """The local Keboola at this port; None: always the same port, or a free one if that is taken."""
    from lib.errors import SettingsError
    from sandbox.folder import FolderKeboola

    try:
        return FolderKeboola(folder, say, complain, port or PORT)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        if port:
            raise SettingsError(f"port {port} cannot be used: {error.strerror}. Choose another with --port") from None
    return FolderKeboola(folder, say, complain)


def _as_json(keboola: FolderKeboola) -> str:
    return json.dumps({"url": keboola.url, "token": keboola.token, "environment": keboola.store_environment})


def _to_paste(keboola: FolderKeboola, folder: Path) -> str:
    """What connects a project to this Keboola."""
    variables = {"KEBOOLA_TOKEN": keboola.token, **keboola.store_environment}
    exports = "\n".join(f"    export {name}={shlex.quote(value)}" for name, value in variables.items())
    return (
        f"\nA local Keboola with the tables in {folder}. In elt_settings.toml, below the line [keboola]:\n\n"
        f'    url = "{keboola.url}"\n\n'
        "If it names no PostgreSQL, below the line [postgres] (needs: pip install -r requirements-demo.txt):\n\n"
        "    embedded = true\n\n"
        f"In each shell in which you load the tables:\n\n{exports}\n\nCtrl-C ends it."
    )


if __name__ == "__main__":
    sys.exit(main())
