"""The command line: where things stand, and every command that the daily scripts do not need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from lib.command_line import RUN_EPILOG, HelpFormatter, add_run_arguments, guarded


def parser() -> argparse.ArgumentParser:
    """Every command with its own --help."""
    whole = argparse.ArgumentParser(
        prog="main.py",
        description="Keboola tables into PostgreSQL: bronze, silver, gold. Without a command: where things stand.",
        epilog="start here: python main.py demo",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="see it work: a local Keboola, a local PostgreSQL, 30 mornings",
        description="Start a PostgreSQL of its own and a local Keboola with sample data, play 29 mornings, run the"
        " daily load of today, and ask gold what an analyst would. Your settings, PG* and KEBOOLA_* variables are"
        " neither read nor written; everything is below .elt/demo/. With a command: run that command against the demo.",
        epilog="examples:\n  python main.py demo\n  python main.py demo psql\n  python main.py demo fail\n"
        "  python main.py demo stop",
        formatter_class=HelpFormatter,
    )
    within_demo = demo.add_subparsers(dest="demo_command", metavar="COMMAND")
    for target in (commands, within_demo):
        _add_commands(target)
    within_demo.add_parser(
        "fail",
        help="play a bad morning: what cron mails, what readers see, what heals it",
        description="Load the demo, then run the daily load once more as cron would, after somebody renamed a column in"
        " Keboola: the mail, gold as it was, and the command that heals it.",
        epilog="example: python main.py demo fail",
    )
    _add_credentials(commands)
    return whole


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What there is for the project and for the demo alike."""
    run = commands.add_parser(
        "run",
        help="run all jobs, or the named ones",
        description="Run all jobs in dependency order, or load the named ones and bring what depends on them"
        " up to date.",
        epilog=RUN_EPILOG,
        formatter_class=HelpFormatter,
    )
    add_run_arguments(run)
    check = commands.add_parser(
        "check",
        help="find everything that can be wrong before a run",
        description="Check settings, registry, scripts and secrets, and report every mistake at once.",
        epilog="example: python main.py check --online",
    )
    check.add_argument(
        "--online",
        action="store_true",
        help="also ask Keboola (token, tables) and PostgreSQL (rights, with the GRANT to run)",
    )
    status = commands.add_parser(
        "status",
        help="the last runs, and how old each job's tables are",
        description="Show the last runs and, for each job, when it was published, its rows and seconds, and its error.",
        epilog="example: python main.py status --runs 20",
    )
    status.add_argument("--runs", type=int, default=7, metavar="N", help="how many runs (default: 7)")
    psql = commands.add_parser(
        "psql",
        help="open psql on the configured database",
        description="Open psql on the configured database, with the password already known to it.",
        epilog='example: python main.py psql -c "SELECT * FROM gold.product_status_summary LIMIT 10"',
        formatter_class=HelpFormatter,
    )
    psql.usage = f"{psql.prog} [psql's own arguments]"
    commands.add_parser(
        "stop",
        help="stop the embedded PostgreSQL",
        description="Stop the PostgreSQL that `embedded = true` (or the demo) started; its data stay.",
        epilog="example: python main.py stop",
    )


def _add_credentials(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    credentials = commands.add_parser(
        "credentials",
        help="set, show or delete the Keboola token and the PostgreSQL password",
        description="Keep a secret where cron finds it: in the keyring, or in a file that only you can read.",
        epilog="examples:\n  python main.py credentials set keboola        asks for the token\n"
        "  python main.py credentials set postgres < file    reads it from a file\n"
        "  python main.py credentials show                shows where they are found, never what they are",
        formatter_class=HelpFormatter,
    )
    credentials.add_argument("action", choices=("set", "show", "delete"))
    credentials.add_argument("name", nargs="?", choices=("keboola", "postgres"), help="which secret (show: both)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    typed, of_psql = _split_psql(list(sys.argv[1:] if arguments is None else arguments))
    given = parser().parse_args(typed)
    given.arguments = of_psql
    return guarded(_command(given))


def _split_psql(typed: list[str]) -> tuple[list[str], list[str]]:
    """What is ours and what belongs to psql: argparse would take psql's options for unknown ones of ours."""
    for place, word in enumerate(typed[:2]):
        if word == "psql" and typed[place + 1 :] not in (["-h"], ["--help"]):
            return typed[: place + 1], typed[place + 1 :]
    return typed, []


def _command(given: argparse.Namespace) -> Callable[[], int]:
    def work() -> int:
        if given.command == "demo":
            from sandbox.bootstrap import ensure_packages

            ensure_packages()
            from sandbox.demo import run_demo

            return run_demo(given)
        from lib.commands import run_command
        from lib.settings import read_settings

        return run_command(given.command, given, read_settings())

    return work


if __name__ == "__main__":
    sys.exit(main())
