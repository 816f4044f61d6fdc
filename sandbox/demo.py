"""The demo: a PostgreSQL of its own, a local Keboola, the project's own jobs. Reads and writes nothing but .elt/demo/.

It plays the last 30 mornings, those that were not played before, so that trends and forecasts have something to show.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING

from lib.commands import command, run_command
from lib.console import Console
from lib.credentials import Secret
from lib.embedded import Server
from lib.settings import ROOT, Postgres, Settings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from lib.registry import Job

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
    from sandbox.inventory import put_inventory
    from sandbox.keboola_server import KeboolaServer

    today = date.today()
    # five in the morning, whenever the demo looks: a second run finds the tables unchanged
    morning = datetime.combine(today, time(5), timezone.utc).timestamp()
    with KeboolaServer(token=settings.keboola_token.reveal(), polls=0, clock=lambda: morning) as keboola:
        os.environ.update(keboola.store_environment)
        settings = replace(settings, keboola_url=keboola.url)
        put_inventory(keboola, products=PRODUCTS, warehouses=WAREHOUSES, day=today.toordinal(), changing=CHANGING)
        if given.demo_command is not None:
            return run_command(given.demo_command, given, settings)
        console.text(f"A local Keboola with {PRODUCTS} products, and a PostgreSQL below {settings.state}.\n")
        _play(settings, [today - timedelta(days=ago) for ago in range(DAYS - 1, 0, -1)], console)
        run = argparse.Namespace(jobs=[], quiet=False, wait=True, accept_shrink=[], date=today)
        exit_code = run_command("run", run, settings)
    if exit_code == 0:
        _show(settings, console)
    return exit_code


def _play(settings: Settings, days: Sequence[date], console: Console) -> None:
    """Load each of these days that is not loaded yet, in a transaction of its own on one connection.

    Rows go straight into bronze, then the jobs' own scripts make silver of them. Today's load, which comes after, is a
    whole run: it exports from Keboola, makes gold and checks everything.
    """
    from lib.database import query, release_run_lock, take_run_lock, translated
    from lib.history import install
    from lib.plan import make_plan, open_database, read_project
    from lib.stop import Stop, run_stoppable

    jobs = [job for group in make_plan(read_project(settings.root)).groups for job in group]

    def play(stop: Stop) -> None:
        connection = open_database(settings, stop).connect("elt demo")
        try:
            take_run_lock(connection, stop.pause)
            install(connection)
            loaded: set[date] = set()
            if query(connection, "SELECT to_regclass('silver.loaded_days')") != [(None,)]:
                loaded = {day for (day,) in query(connection, "SELECT day FROM silver.loaded_days")}
            missing = [day for day in days if day not in loaded]
            if missing:
                console.text(f"Loading {len(missing)} mornings before today, {missing[0]} to {missing[-1]} ...\n")
            for day in missing:
                stop.check()
                _load_morning(connection, jobs, day)
        finally:
            release_run_lock(connection)
            connection.close()

    with translated("the mornings before today"):
        run_stoppable(play)


def _load_morning(connection: Connection, jobs: Sequence[Job], day: date) -> None:
    from psycopg2.extras import execute_values

    from lib.database import transaction
    from lib.transformer import run_script
    from sandbox.inventory import PRODUCT_COLUMNS, STOCK_COLUMNS, products, stock

    number = day.toordinal()
    tables = {
        "products": (PRODUCT_COLUMNS, products(PRODUCTS, number, CHANGING)),
        "products_inventory_locations": (STOCK_COLUMNS, stock(PRODUCTS, WAREHOUSES, number, CHANGING)),
    }
    with transaction(connection, lock_timeout=5, run_date=day), connection.cursor() as cursor:
        for job in jobs:
            for script in job.transform:
                if script.layer == "bronze":
                    run_script(connection, script)
            if job.load:
                columns, rows = tables[job.name]
                cursor.execute(f"DELETE FROM {job.load.table}")
                execute_values(cursor, f"INSERT INTO {job.load.table} ({', '.join(columns)}) VALUES %s", rows)
            for script in job.transform:
                if script.layer == "silver":
                    run_script(connection, script)


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
