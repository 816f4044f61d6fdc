"""The demo: a PostgreSQL of its own, a local Keboola, the project's own jobs. Reads and writes nothing but .elt/demo/.

It plays the last 30 mornings, those that were not played before, so that trends and forecasts have something to show.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING

from lib.commands import command, run_command
from lib.console import Console
from lib.credentials import Secret
from lib.embedded import Server
from lib.settings import ROOT, Postgres, Settings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from sandbox.keboola_server import KeboolaServer

PRODUCTS = 50
WAREHOUSES = 3
#: as many as a forecast looks back, the one before, and one more
DAYS = 30
#: the share of products that move from one day to the next
CHANGING = 0.2
#: what an analyst would ask, and how
TOUR = (
    (
        "Which products are active, and is there enough of them?",
        "SELECT product_sku, product_name, product_type, product_status, total_stock, stock_status"
        " FROM gold.product_status_summary ORDER BY product_sku LIMIT 10",
    ),
    (
        "What must be bought again, and since when?",
        "SELECT product_sku, product_name, stock_status, total_stock, quantity_missing, low_since"
        " FROM gold.low_stock_products ORDER BY low_since, product_sku LIMIT 5",
    ),
    (
        "What will be out of stock next?",
        "SELECT product_sku, total_stock, average_daily_decrease, days_of_cover, expected_stock_out_date"
        " FROM gold.stock_forecast ORDER BY expected_stock_out_date, product_sku LIMIT 5",
    ),
    (
        "What came and what went?",
        "SELECT date_key, product_sku, product_name, opening_stock, stock_change, closing_stock"
        " FROM gold.stock_movements ORDER BY date_key DESC, product_sku LIMIT 5",
    ),
    (
        "Which products changed their status?",
        "SELECT date_key, product_sku, product_name, status_left, status_entered"
        " FROM gold.status_changes ORDER BY date_key DESC, product_sku LIMIT 5",
    ),
    (
        "What does each warehouse hold?",
        "SELECT warehouse_name, products_in_stock, quantity_available, quantity_without_product,"
        " round(space_taken_cm3 / 1000) AS litres FROM gold.warehouse_stock_summary ORDER BY warehouse_id",
    ),
    (
        "How did the stock of each kind of product go, week by week?",
        "SELECT iso_week, product_type, round(sum(quantity_available) / count(DISTINCT date_key)) AS pieces_a_day"
        " FROM gold.fact_inventory_daily JOIN gold.dim_product USING (product_key) JOIN gold.dim_date USING (date_key)"
        " WHERE product_type = 'cable' GROUP BY iso_year, iso_week, product_type ORDER BY iso_year, iso_week",
    ),
    (
        "What is wrong with the data?",
        "SELECT rule, severity, rows_today, rows_yesterday, share_of_rows, example_key"
        " FROM gold.data_quality_summary ORDER BY rows_today DESC, rule LIMIT 5",
    ),
)


def run_demo(given: argparse.Namespace) -> int:
    """Run the demo, or one command against it; returns the exit code."""
    for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
        del os.environ[name]  # libpq reads them by itself
    settings = Settings(
        root=ROOT,
        state_folder=".elt/demo",
        postgres=Postgres(embedded=True),
        keboola_url="http://127.0.0.1",
        keboola_token=Secret("815-4711-demo"),
    )
    console = Console()
    if given.demo_command in (None, "run", "check"):
        return _with_keboola(settings, given, console)
    return run_command(given.demo_command, given, settings)


def _with_keboola(settings: Settings, given: argparse.Namespace, console: Console) -> int:
    from sandbox.keboola_server import KeboolaServer

    today = date.today()
    clock = _Clock(today)
    with KeboolaServer(token=settings.keboola_token.reveal(), polls=0, clock=clock) as keboola:
        os.environ.update(keboola.store_environment)
        settings = replace(settings, keboola_url=keboola.url)
        if given.demo_command is not None:
            _import(keboola, today)
            return run_command(given.demo_command, given, settings)
        console.text(f"A local Keboola with {PRODUCTS} products, and a PostgreSQL below {settings.state}.\n")
        exit_code = _play(settings, keboola, clock, [today - timedelta(days=ago) for ago in range(DAYS - 1, 0, -1)])
        if exit_code == 0:
            clock.day = today
            _import(keboola, today)
            run = argparse.Namespace(jobs=[], quiet=False, wait=True, accept_shrink=[], date=today)
            exit_code = run_command("run", run, settings)
    if exit_code == 0:
        _show(settings, console)
    return exit_code


@dataclass
class _Clock:
    """Five in the morning, whenever the demo looks: a second run finds the tables unchanged."""

    day: date

    def __call__(self) -> float:
        return datetime.combine(self.day, time(5), timezone.utc).timestamp()


def _import(keboola: KeboolaServer, day: date) -> None:
    from sandbox.inventory import put_inventory

    put_inventory(keboola, products=PRODUCTS, warehouses=WAREHOUSES, day=day.toordinal(), changing=CHANGING)


def _play(settings: Settings, keboola: KeboolaServer, clock: _Clock, days: Sequence[date]) -> int:
    """Load each of these days that is not loaded yet, in order; returns the exit code of the first that fails."""
    from lib.plan import make_plan, open_database, read_project
    from lib.runner import Options, Run
    from lib.stop import Stop, run_stoppable

    connection = _connect(settings)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('silver.loaded_days')")
        loaded: set[date] = set()
        if cursor.fetchone() != (None,):
            cursor.execute("SELECT day FROM silver.loaded_days")
            loaded = {day for (day,) in cursor.fetchall()}
    connection.close()
    missing = [day for day in days if day not in loaded]
    if not missing:
        return 0
    plan, console = make_plan(read_project(settings.root)), Console(quiet=True, zone=settings.zone)
    Console().text(f"Loading {len(missing)} mornings before today, {missing[0]} to {missing[-1]} ...\n")
    settings = replace(settings, parallel=1)  # a connection that copies 50 rows takes longer to open than to use

    def play(stop: Stop) -> int:
        database = open_database(settings, stop)
        for day in missing:
            clock.day = day
            _import(keboola, day)
            options = Options(wait=True, run_date=day)
            result = Run(plan, settings, database, console, options).run()
            if result.exit_code:
                console.summary(f"{day}", result.records, result.error)
                return result.exit_code
        return 0

    return run_stoppable(play)


def _connect(settings: Settings) -> Connection:
    import psycopg2

    return psycopg2.connect(**Server.start(settings.state / "postgres").connect_args())


def _show(settings: Settings, console: Console) -> None:
    """What an analyst would see, and what a newcomer may type next."""
    connection = _connect(settings)
    with connection, connection.cursor() as cursor:
        for question, sql in TOUR:
            cursor.execute(sql)
            console.text(f"\n{question}\n\n{sql};\n")
            console.table([column.name for column in cursor.description], cursor.fetchall())
    connection.close()
    console.text("\nNext:\n")
    console.text(f"    {command('psql', settings)}              look around: \\d+ gold.product_status_summary")
    console.text(f"    {command('run products', settings)}      load one job again, with all that depends on it")
    console.text(f"    {command('status', settings)}            the runs so far, and how old each table is")
    console.text(f"\nThe PostgreSQL goes on running; to end it: {command('stop', settings)}")
