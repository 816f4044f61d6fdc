"""The arguments of every command, and the text of a command as the user can type it here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.config.settings import Settings


EXIT_CODES = (
    "exit codes: 0 done, 1 a job failed, 2 registry, settings or usage, 75 another run is at work, 129/130/143 stopped"
)


def _run_epilog(prog: str, alone: str) -> str:
    """Examples of a command that runs jobs. prog: how it is typed. alone: what it does without job names."""
    examples = (
        ("", alone),
        (" products", "one job, and the transforms and checks of what depends on it"),
        (" --accept products:shrink", "load an export much smaller than its table, once"),
    )
    lines = [f"  python {prog}{words:<27}{what}" for words, what in examples]
    return "\n".join(["examples:", *lines, "", EXIT_CODES])


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps a text of one line; keeps the line breaks of other texts, such as examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        kind = argparse.RawDescriptionHelpFormatter if "\n" in text else argparse.HelpFormatter
        return kind._fill_text(self, text, width, indent)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a run; they are the same for main.py and both scripts."""
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="job names of elt_jobs.json")
    parser.add_argument("--quiet", action="store_true", help="print only what is wrong")
    parser.add_argument("--wait", action="store_true", help="if another run is at work, wait for it instead of exit 75")
    parser.add_argument(
        "--no-wait", action="store_true", help="do not wait for the flow that wait_for_flow in elt_settings.toml names"
    )
    parser.add_argument(
        "--full", action="store_true", help="export every table, also one that did not change in the source"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="JOB:GUARD",
        help="load this job once although a guard refuses it: missing (a column), shrink, empty, growth, age, count"
        " (of rows) or undone; the guard's message prints the whole command",
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
    parser.add_argument(
        "--accept-date",
        action="store_true",
        help="take the day of --date although it is more than a year before the first one that was published",
    )


def _add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="compare also gold views of more than 2,000,000 rows; it may take minutes"
    )
    parser.add_argument(
        "--limit", type=_count_of_rows, default=5, metavar="N", help="changed rows of each table and view (default: 5)"
    )


def _past_date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: write it as 2026-01-31") from None
    if day > date.today() + timedelta(days=1):
        raise argparse.ArgumentTypeError(f"{text} is in the future")
    return day


def _number(text: str, least: int, refusal: str) -> int:
    # PostgreSQL's bigint takes every number of 18 digits
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not {refusal}")
    return int(text)


def _count_of_runs(text: str) -> int:
    return _number(text, 1, "a number of runs: write 1 or more")


def _run_number(text: str) -> int:
    return _number(text, 0, "the number of a run: `status` lists them")


def _count_of_rows(text: str) -> int:
    return _number(text, 0, "a number of rows: write 0 or more")


def how_to_type(name: str, settings: Settings) -> str:
    """The text of a command as the user can type it here, for the demo or the project."""
    return f"{_python()} main.py {'demo ' if settings.state_folder != '.elt' else ''}{name}"


def _python() -> str:
    """The shortest text with which the Python that runs now can be started from this folder."""
    import shutil

    inside = os.path.relpath(sys.executable)
    if not inside.startswith(".."):
        return inside
    return "python" if shutil.which("python") == sys.executable else sys.executable


def main_parser() -> argparse.ArgumentParser:
    """The parser of main.py, with every command and its --help."""
    whole = argparse.ArgumentParser(
        prog="main.py",
        description="Keboola tables into PostgreSQL: bronze, silver, gold. Without a command: what is set up, and how"
        " the last run ended.",
        epilog="start here: python main.py demo",
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="see it work: a local Keboola, a local PostgreSQL, 30 mornings",
        description="Start a separate PostgreSQL and a local Keboola with sample data, load the 29 days before today,"
        " then today, and print answers from gold. Your settings, PG* and KEBOOLA_* variables are not used or changed;"
        " everything is below .elt/demo/. With a command: run that command against the demo; `add` and `remove` change"
        " the scripts and jobs of this project.",
        epilog="examples:\n  python main.py demo\n  python main.py demo psql\n  python main.py demo fail\n"
        "  python main.py demo stop",
        formatter_class=HelpFormatter,
    )
    within_demo = demo.add_subparsers(dest="demo_command", metavar="COMMAND")
    _add_commands(commands, "main.py")
    _add_commands(within_demo, "main.py demo")
    within_demo.add_parser(
        "fail",
        help="play a bad morning: what cron mails, what readers see, what fixes it",
        description="Load the demo, rename a column in its Keboola, then run the daily load once more as cron would."
        " Shows the mail, gold as it was before, and the command that fixes it.",
        epilog="example: python main.py demo fail",
    )
    _add_credentials(commands)
    _add_scaffold(commands, "main.py")
    _add_scaffold(within_demo, "main.py demo")
    return whole


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], prog: str) -> None:
    """Add the commands that exist both for the project and for the demo. prog: what is typed before them."""
    run = commands.add_parser(
        "run",
        help="run all jobs, or the named ones",
        description="Run all jobs in dependency order, or load the named ones and bring what depends on them"
        " up to date.",
        epilog=_run_epilog(f"{prog} run", "every job, as elt_daily_load.py does"),
        formatter_class=HelpFormatter,
    )
    _add_run_arguments(run)
    preview = commands.add_parser(
        "preview",
        help="show what a run would change, and change nothing",
        description="Do all that `run` does and roll it back. Shows the rows that would change in bronze, silver and"
        " each gold view, columns that would come or go, definitions that would be applied, and checks that would fail"
        " or warn. Readers do not notice; a run that begins meanwhile ends the preview. It does not wait for a flow.",
        epilog=f"examples:\n  python {prog} preview\n  python {prog} preview products --limit 20\n\n"
        "exit codes: as `run` would end; 75 another run is at work, or ended this preview",
        formatter_class=HelpFormatter,
    )
    _add_run_arguments(preview)
    _add_preview_arguments(preview)
    check = commands.add_parser(
        "check",
        help="find every mistake that can be found before a run",
        description="Check settings, registry, scripts and secrets, and report every mistake at once.",
        epilog=f"example: python {prog} check --online",
    )
    check.add_argument(
        "--as-cron",
        action="store_true",
        help="run all checks in cron's environment, and print the crontab line for this machine",
    )
    check.add_argument("--crontab", metavar="FILE", help="a crontab whose variables --as-cron sets, too")
    check.add_argument(
        "--online",
        action="store_true",
        help="also ask Keboola (token, tables) and PostgreSQL (rights, with the statements that give them)",
    )
    status = commands.add_parser(
        "status",
        help="the last runs, and how old each job's tables are",
        description="Show the last runs, and for each job when it was published, its rows, when the source imported"
        " them, and its error.",
        epilog=f"example: python {prog} status --runs 20",
    )
    status.add_argument("--runs", type=_count_of_runs, default=7, metavar="N", help="how many runs (default: 7)")
    changes = commands.add_parser(
        "changes",
        help="what a run changed: the rows before and after",
        description="Show what the last published run changed, or that run: how many rows of each table, the first of"
        " them before and after, and the gold views that read the table.",
        epilog=f"examples:\n  python {prog} changes 17 --table silver.products\n"
        f"  python {prog} changes --since 2026-11-01 --key HW-000012     which runs changed this SKU\n"
        f"  python {prog} changes --limit 0                              only the counts",
        formatter_class=HelpFormatter,
    )
    changes.add_argument("run", nargs="?", type=_run_number, metavar="RUN", help="number of a run, as in `status`")
    changes.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="only this table, such as silver.products; a gold view stands for the tables that it reads",
    )
    changes.add_argument(
        "--key",
        metavar="VALUE",
        help="only rows with this value in a column of their primary key; in bronze, which has none, in any column",
    )
    changes.add_argument(
        "--since",
        type=_past_date,
        metavar="YYYY-MM-DD",
        help="every run, beginning with the first that loaded this day or a later one",
    )
    changes.add_argument(
        "--limit", type=_count_of_rows, default=5, metavar="N", help="how many rows of each table (default: 5)"
    )
    changes.add_argument("--json", action="store_true", help="print one JSON document, with whole values")
    undo = commands.add_parser(
        "undo",
        help="take back what the last published run changed",
        description="Show what the last published run changed, ask, and take it back: bronze, silver, and with them"
        " gold. Typed again, it goes one run further back. Nothing is done if somebody changed one of the rows since."
        " The next load is held back until a source is imported anew.",
        epilog=f"example: python {prog} undo",
    )
    undo.add_argument("--yes", action="store_true", help="do not ask")
    undo.add_argument(
        "--except",
        dest="leave",
        action="append",
        default=[],
        metavar="TABLE",
        help="leave this table as it is, such as silver.stock_thresholds",
    )
    report = commands.add_parser(
        "report",
        help="write the page: the questions, the last runs, the tables",
        description="Write one HTML file with the state of the warehouse, the answers to report/questions, what the"
        " last runs changed, and what each table means. It opens without a server and without the internet.",
        epilog=f"example: python {prog} report --output warehouse.html",
    )
    report.add_argument("--output", metavar="FILE", help="where to write it (default: report.html in the state folder)")
    psql = commands.add_parser(
        "psql",
        help="open psql on the configured database",
        description="Open psql on the configured database, without asking for the password.",
        epilog=f'example: python {prog} psql -c "SELECT * FROM gold.product_status_summary LIMIT 10"',
        formatter_class=HelpFormatter,
    )
    psql.usage = f"{psql.prog} [psql's own arguments]"
    commands.add_parser(
        "stop",
        help="stop the embedded PostgreSQL",
        description="Stop the PostgreSQL that `embedded = true` (or the demo) started; its data stay.",
        epilog=f"example: python {prog} stop",
    )


def _add_scaffold(commands: argparse._SubParsersAction[argparse.ArgumentParser], prog: str) -> None:
    add = commands.add_parser(
        "add",
        help="write the scripts and the registry entry of a source table",
        description="Ask the source for a table's columns, types, key and descriptions, and write its scripts and its"
        " entry in elt_jobs.json. Nothing is overwritten. Without a table: list those that no job loads.",
        epilog=f"examples:\n  python {prog} add\n  python {prog} add "
        + ("in.c-erp.unit_costs --key sku" if "demo" in prog else "in.c-erp.suppliers --gold"),
        formatter_class=HelpFormatter,
    )
    add.add_argument("table", nargs="?", metavar="TABLE", help="id of the source table, such as in.c-erp.suppliers")
    add.add_argument("--name", metavar="JOB", help="name of the job and its tables (default: that of the table)")
    add.add_argument("--columns", metavar="A,B", help="load only these columns (default: all)")
    add.add_argument(
        "--rename", metavar="OLD=NEW", action="append", default=[], help="call a column otherwise in silver"
    )
    add.add_argument(
        "--key", metavar="A,B", help="columns that identify a row (default: the primary key of the source table)"
    )
    add.add_argument("--gold", action="store_true", help="also make a gold view of the silver table")
    add.add_argument("--bronze-only", action="store_true", help="make no silver table")
    remove = commands.add_parser(
        "remove",
        help="take a job and its scripts out of the project",
        description="Take a job and the scripts that only it uses out of the project, and print the statements that"
        " drop its tables. The database is not changed.",
        epilog=f"example: python {prog} remove suppliers",
    )
    remove.add_argument("job", metavar="JOB", help="name of the job in elt_jobs.json")
    remove.add_argument("--yes", action="store_true", help="do not ask")


def _add_credentials(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    credentials = commands.add_parser(
        "credentials",
        help="set, show or delete the Keboola token and the PostgreSQL password",
        description="Store a secret in the keyring, or in a file that only you can read if there is no keyring.",
        epilog="examples:\n  python main.py credentials set keboola        asks for the token\n"
        "  python main.py credentials set postgres < file    reads it from a file\n"
        "  python main.py credentials show                shows where they are stored, never the secrets",
        formatter_class=HelpFormatter,
    )
    credentials.add_argument("action", choices=("set", "show", "delete"))
    credentials.add_argument("name", nargs="?", choices=("keboola", "postgres"), help="which secret (show: both)")


def run_parser(jobs: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a script that lists these jobs; none: all jobs. Its examples name the script."""
    parser = argparse.ArgumentParser(
        description="Run the jobs that the script lists, or those named here.", formatter_class=HelpFormatter
    )
    parser.epilog = _run_epilog(parser.prog, f"the jobs in its list: {', '.join(jobs)}" if jobs else "every job")
    _add_run_arguments(parser)
    return parser


def split_psql(typed: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments after `psql`, which are passed to psql, from ours: argparse would refuse psql's options."""
    for place, word in enumerate(typed[:2]):
        if word == "psql" and typed[place + 1 :] not in (["-h"], ["--help"]):
            return typed[: place + 1], typed[place + 1 :]
    return typed, []
