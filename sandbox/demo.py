"""The demo: its own PostgreSQL, a local Keboola, and the project's jobs. It writes only below .elt/demo/.

Trends and forecasts need a history. Therefore the demo first runs the daily load for each of the 29 days before today
that is not loaded yet, then for today. The story of the sample products (sandbox/inventory.py) ends today. If the demo
is started again on a later day, the story ends on that day.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from lib.cli.arguments import how_to_type
from lib.cli.command_line import run_command
from lib.cli.console import Console
from lib.cli.report import write
from lib.config.secret_value import Secret
from lib.config.settings import ROOT, Postgres, Settings
from lib.errors import DatabaseError
from lib.load.guards import Accepted
from lib.postgres.connection import Database
from lib.report.questions import read_questions
from lib.run.plan import Plan, make_plan, read_project
from lib.run.runner import Options, Run
from lib.stop import StopSignal, run_stoppable
from sandbox.inventory import (
    CAST,
    COST_COLUMNS,
    COSTS_TABLE,
    PRODUCTS_TABLE,
    STOCK_COLUMNS,
    STOCK_TABLE,
    UNIT_COSTS,
    put_inventory,
    stock,
)
from sandbox.keboola_server import KeboolaServer

TOKEN = Secret("815-4711-demo")
#: the days of the story: the days that a forecast looks back, the day before these, and one more
DAYS = 30
#: how many rows of an answer the tour prints
SHOWN = 10
SENTENCE = "SELECT sentence FROM gold.load_status"
#: questions beside those of the page, each with its query
MORE_QUESTIONS = (
    ("Which products are low?", "SELECT * FROM gold.product_status_summary WHERE stock_status = 'Low Stock'"),
    ("How fresh is all this?", SENTENCE),
)


#: what goes wrong in the bad morning: this column of the stock table gets a new name
RENAMED = {"quantity_available": "available_quantity"}
STILL_THERE = (
    "SELECT product_sku, total_stock, stock_status FROM gold.product_status_summary ORDER BY product_sku LIMIT 3"
)


def run_demo(given: argparse.Namespace) -> int:
    """Run the demo, or one command against it; returns the exit code."""
    for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
        del os.environ[name]  # libpq would read them itself
    settings = Settings(
        root=ROOT,
        state_folder=".elt/demo",
        postgres=Postgres(embedded=True),
        keboola_url="http://127.0.0.1",
        keboola_token=TOKEN,
    )
    console = Console()
    if given.demo_command in (None, "run", "preview", "check", "fail"):
        return _with_keboola(settings, given, console)
    return run_command(given.demo_command, given, settings)


class _Keboola(KeboolaServer):
    """The demo's local Keboola. It holds the tables of one day of the story, whose last day is today."""

    def __init__(self, today: date) -> None:
        super().__init__(token=TOKEN.reveal(), polls=0, clock=self._five_in_the_morning)
        self._today = self._day = today
        self.put_table(COSTS_TABLE, columns=COST_COLUMNS, rows=UNIT_COSTS)

    def _five_in_the_morning(self) -> float:
        """The clock: always 5:00 on that day, so that for a second run the tables are unchanged."""
        return datetime.combine(self._day, time(5), UTC).timestamp()

    def put(self, day: date) -> None:
        """Replace the inventory by that of this day, imported on this day."""
        self._day = day
        for table in (PRODUCTS_TABLE, STOCK_TABLE):
            self.delete_table(table)
        put_inventory(self, products=0, day=day.toordinal(), story_ends=self._today.toordinal())


def _with_keboola(settings: Settings, given: argparse.Namespace, console: Console) -> int:
    today = date.today()
    with _Keboola(today) as keboola:
        os.environ.update(keboola.store_environment)
        settings = replace(settings, keboola_url=keboola.url)
        keboola.put(today)
        if given.demo_command in ("run", "preview", "check"):
            return run_command(given.demo_command, given, settings)
        if given.demo_command == "fail":
            return _fail(settings, keboola, today, console)
        console.text(f"A local Keboola with {len(CAST)} products, and a PostgreSQL below {settings.state}.\n")
        exit_code = _load(settings, keboola, today, console)
    if exit_code == 0:
        _show(settings, console)
    return exit_code


def _load(settings: Settings, keboola: _Keboola, today: date, console: Console, *, quiet: bool = False) -> int:
    """Load the days before today, then today. Returns the exit code."""
    if exit_code := _play(settings, keboola, today, console):
        return exit_code
    keboola.put(today)
    return _daily_load(settings, today, quiet=quiet)


def _daily_load(settings: Settings, today: date, *, quiet: bool) -> int:
    accepted = {"accept": [], "accept_shrink": [], "accept_date": False}
    run = argparse.Namespace(jobs=[], quiet=quiet, wait=True, no_wait=True, full=False, date=today, **accepted)
    return run_command("run", run, settings)


def _fail(settings: Settings, keboola: _Keboola, today: date, console: Console) -> int:
    """Play a bad morning: rename a column, then show cron's mail, gold as it was before, and the command that fixes it.

    Returns 0 if the load failed and gold is unchanged, as it should be.
    """
    if exit_code := _load(settings, keboola, today, console, quiet=True):
        return exit_code
    before = _ask(settings, STILL_THERE)
    renamed = [RENAMED.get(column, column) for column in STOCK_COLUMNS]
    rows = list(stock(0, day=today.toordinal(), story_ends=today.toordinal()))
    keboola.put_table(STOCK_TABLE, columns=renamed, rows=rows)
    ((old, new),) = RENAMED.items()
    console.text(f"In Keboola, somebody renames {old} of products_inventory_locations to {new}.")
    console.text("At six, cron runs python elt_daily_load.py --quiet, and mails:\n")
    exit_code = _daily_load(settings, today, quiet=True)
    after = _ask(settings, STILL_THERE)
    console.text(f"\nThe exit code is {exit_code}. Everybody still reads what was loaded before:\n\n{STILL_THERE};\n")
    console.table(*after)
    console.text(f"\n{SENTENCE};\n")
    console.table(*_ask(settings, SENTENCE))
    console.text("\nThe demo's Keboola now has the old column name again. This command fixes it:\n")
    console.text(f"    {how_to_type('run', settings)}")
    return 0 if (exit_code, after) == (1, before) else 1


def _play(settings: Settings, keboola: _Keboola, today: date, console: Console) -> int:
    """Run the daily load of each day before today that is not loaded yet. Returns an exit code.

    Groups that the user added and whose tables are not in the demo's Keboola are left out here. Today's load includes
    them and reports the missing table.
    """
    registry = read_project(settings.root)
    known = [
        group
        for group in make_plan(registry).groups
        if all(job.load.extract.table in (PRODUCTS_TABLE, STOCK_TABLE, COSTS_TABLE) for job in group if job.load)
    ]
    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, 0, -1)]
    missing = sorted(set(days) - _loaded_days(settings))
    if not missing or not known:
        return 0
    plan = make_plan(registry, [job.name for group in known for job in group])
    console.text(f"Loading {len(missing)} mornings before today, {missing[0]} to {missing[-1]} ...\n")
    stop = StopSignal()
    return run_stoppable(lambda: _play_days(settings, keboola, plan, missing, console, stop), stop)


def _play_days(
    settings: Settings, keboola: _Keboola, plan: Plan, days: Sequence[date], console: Console, stop: StopSignal
) -> int:
    """Run one day after the other. The output of a run is printed only if it fails."""
    # the guards are accepted, because the demo's products may have changed since it was last used
    accepted = Accepted(frozenset((name, guard) for name in plan.loads for guard in ("shrink", "empty")))
    for day in days:
        stop.raise_if_requested()
        keboola.put(day)
        words = io.StringIO()
        told = Console(out=words, err=words)
        options = Options(wait=True, accepted=accepted, run_date=day)
        result = Run(plan, settings, Database(settings, stop), told, options).run()
        stop.raise_if_requested()
        if result.exit_code:
            console.text(words.getvalue().rstrip())
            console.summary(f"the morning of {day}", result.records, result.error)
            return result.exit_code
    return 0


def _loaded_days(settings: Settings) -> set[date]:
    """The days that the history holds. Raises DatabaseError if another version of the demo made it: the sample data of
    two versions do not fit together."""
    if _ask(settings, "SELECT to_regclass('silver.loaded_days'), to_regclass('silver.products')")[1] == [(None, None)]:
        return set()
    skus = [member.sku for member in CAST]
    products = "SELECT count(*), count(*) FILTER (WHERE product_sku = ANY(%s)) FROM silver.products"
    _, [(all_products, known)] = _ask(settings, products, skus)
    if all_products and not known:
        raise DatabaseError(
            f"{settings.state} holds the sample products of another version of the demo. To begin again:\n"
            f"    {how_to_type('stop', settings)}\n    rm -r {settings.state}"
        )
    return {day for (day,) in _ask(settings, "SELECT day FROM silver.loaded_days")[1]}


def _ask(settings: Settings, sql: str, *arguments: object) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Headers and rows of one query on the demo's database."""
    connection = Database(settings).connect("elt demo")
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return [column.name for column in cursor.description or ()], cursor.fetchall()
    finally:
        connection.close()


def tour() -> list[tuple[str, str]]:
    """The questions of an analyst, each with its query: those of the page, and two more."""
    return [*((question.title, question.sql) for question in read_questions(ROOT)), *MORE_QUESTIONS]


def _show(settings: Settings, console: Console) -> None:
    """Print the answers to an analyst's questions, and the commands to try next. Write the page."""
    for question, sql in tour():
        console.text(f"\n{question}\n\n{sql};\n")
        headers, rows = _ask(settings, sql)
        console.table(headers, rows[:SHOWN])
        if len(rows) > SHOWN:
            console.text(f"(the first {SHOWN} of {len(rows)} rows)")
    console.text("\nNext:\n")
    for name, hint in (
        ("psql", "look around: \\d+ gold.product_status_summary"),
        ("run products", "load one job again, with all that depends on it"),
        ("status", "the runs, and how old each table is"),
        ("changes", "what the last load changed, before and after"),
        ("fail", "play a bad morning: what cron mails, and what fixes it"),
    ):
        console.text(f"    {how_to_type(name, settings)}{' ' * (14 - len(name))}{hint}")
    console.text(f"\nThe PostgreSQL keeps running; to stop it: {how_to_type('stop', settings)}")
    console.text(f"All of this as a page, with charts: {write(settings)[0]}")
