"""The demo: a PostgreSQL of its own, a local Keboola, the project's own jobs. Reads and writes nothing but .elt/demo/."""

from __future__ import annotations

import argparse
import os
from datetime import date, datetime, time, timezone

from lib.commands import command, run_command
from lib.console import Console
from lib.credentials import Secret
from lib.embedded import Server
from lib.settings import ROOT, Postgres, Settings

PRODUCTS = 50
WAREHOUSES = 3
TOUR = (
    "SELECT product_sku, product_name, product_type, product_status, total_stock, stock_status"
    " FROM gold.product_status_summary ORDER BY product_sku LIMIT 10"
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
    from dataclasses import replace

    from sandbox.inventory import put_inventory
    from sandbox.keboola_server import KeboolaServer

    today = date.today()
    # imported at five this morning, whenever the demo looks: a second run finds the tables unchanged
    morning = datetime.combine(today, time(5), timezone.utc).timestamp()
    with KeboolaServer(token=settings.keboola_token.reveal(), polls=0, clock=lambda: morning) as keboola:
        put_inventory(keboola, products=PRODUCTS, warehouses=WAREHOUSES, day=today.toordinal())
        os.environ.update(keboola.store_environment)
        settings = replace(settings, keboola_url=keboola.url)
        if given.demo_command is not None:
            return run_command(given.demo_command, given, settings)
        console.text(f"A local Keboola with {PRODUCTS} products, and a PostgreSQL below {settings.state}.\n")
        run = argparse.Namespace(jobs=[], quiet=False, wait=True, accept_shrink=[], date=None)
        exit_code = run_command("run", run, settings)
    if exit_code == 0:
        _show(settings, console)
    return exit_code


def _show(settings: Settings, console: Console) -> None:
    """What an analyst would see, and what a newcomer may type next."""
    import psycopg2

    server = Server.start(settings.state / "postgres")
    connection = psycopg2.connect(**server.connect_args())
    with connection, connection.cursor() as cursor:
        cursor.execute(TOUR)
        headers = [column.name for column in cursor.description]
        rows = cursor.fetchall()
    connection.close()
    console.text(f"\n{TOUR};\n")
    console.table(headers, rows)
    console.text("\nNext:\n")
    console.text(f"    {command('psql', settings)}              look around: \\d+ gold.product_status_summary")
    console.text(f"    {command('run products', settings)}      load one job again, with all that depends on it")
    console.text(f"    {command('status', settings)}            the runs so far, and how old each table is")
    console.text(f"\nThe PostgreSQL goes on running; to end it: {command('stop', settings)}")
