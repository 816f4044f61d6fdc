"""The demo: a PostgreSQL of its own, a local Keboola, the project's own jobs. Reads and writes nothing but .elt/demo/.

The daily load of today is a whole run. Before it come the 29 mornings that trends and forecasts need, those that were
not played before: their rows go into bronze without an export, and the jobs' own scripts make silver of them. The cast
of sandbox/inventory.py tells its story up to today; started again on a later day, the demo goes on with that day's
telling.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from lib.cli.arguments import how_to_type
from lib.cli.command_line import run_command
from lib.cli.console import Console
from lib.config.secret import Secret
from lib.config.settings import ROOT, Postgres, Settings

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from lib.config.jobs import Job
    from sandbox.keboola_server import KeboolaServer

TOKEN = Secret("815-4711-demo")
#: as many as a forecast looks back, the one before, and one more: the days of the story
DAYS = 30
OPEN_PSQL = "Somebody holds a lock, perhaps a transaction left open in psql: end it, then start the demo again."
#: what an analyst would ask, and how
TOUR = (
    (
        "What do we order, how much, and until when?",
        "SELECT product_sku, product_name, reorder_quantity, order_by, reason"
        " FROM gold.reorder_proposals ORDER BY order_by, product_sku",
    ),
    (
        "Which products are low?",
        "SELECT * FROM gold.product_status_summary WHERE stock_status = 'Low Stock'",
    ),
    (
        "Which products are active, and is there enough of them?",
        "SELECT product_sku, product_name, product_type, product_status, total_stock, stock_status"
        " FROM gold.product_status_summary ORDER BY product_sku",
    ),
    (
        "What must be bought again, and since when?",
        "SELECT product_sku, product_name, stock_status, total_stock, quantity_missing, low_since"
        " FROM gold.low_stock_products ORDER BY low_since, product_sku",
    ),
    (
        "What will be out of stock next?",
        "SELECT product_sku, total_stock, average_daily_decrease, days_of_cover, expected_stock_out_date"
        " FROM gold.stock_forecast WHERE product_status = 'Active'"
        " ORDER BY expected_stock_out_date, product_sku LIMIT 5",
    ),
    (
        "Where is stock stuck in quarantine, and since when?",
        "SELECT product_sku, product_name, warehouse_name, quarantined_quantity, quarantined_since, days_in_quarantine"
        " FROM gold.quarantined_stock ORDER BY quarantined_since, product_sku",
    ),
    (
        "What never moves, and how much space does it take?",
        "SELECT product_sku, product_name, total_stock, round(space_taken_cm3 / 1000, 1) AS litres, last_decrease"
        " FROM gold.slow_movers ORDER BY space_taken_cm3 DESC, product_sku",
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
        "SELECT rule, severity, rows_today, rows_yesterday, share_of_rows, pieces, example_key"
        " FROM gold.data_quality_summary ORDER BY rows_today DESC, rule LIMIT 5",
    ),
    (
        "How fresh is all this?",
        "SELECT sentence FROM gold.load_status",
    ),
)


#: what goes wrong in the bad morning: a column of the stock table, and its new name
RENAMED = {"quantity_available": "available_quantity"}
STILL_THERE = (
    "SELECT product_sku, total_stock, stock_status FROM gold.product_status_summary ORDER BY product_sku LIMIT 3"
)


SENTENCE = "SELECT sentence FROM gold.load_status"


def run_demo(given: argparse.Namespace) -> int:
    """Run the demo, or one command against it; returns the exit code."""
    for name in [name for name in os.environ if name.startswith(("PG", "KEBOOLA_", "POSTGRES_"))]:
        del os.environ[name]  # libpq reads them by itself
    settings = Settings(
        root=ROOT,
        state_folder=".elt/demo",
        postgres=Postgres(embedded=True),
        keboola_url="http://127.0.0.1",
        keboola_token=TOKEN,
    )
    console = Console()
    if given.demo_command in (None, "run", "check", "fail"):
        return _with_keboola(settings, given, console)
    return run_command(given.demo_command, given, settings)


def _with_keboola(settings: Settings, given: argparse.Namespace, console: Console) -> int:
    from sandbox.inventory import CAST, COST_COLUMNS, COSTS_TABLE, UNIT_COSTS, put_inventory
    from sandbox.keboola_server import KeboolaServer

    today = date.today()
    # five in the morning, whenever the demo looks: a second run finds the tables unchanged
    morning = datetime.combine(today, time(5), UTC).timestamp()
    with KeboolaServer(token=TOKEN.reveal(), polls=0, clock=lambda: morning) as keboola:
        os.environ.update(keboola.store_environment)
        settings = replace(settings, keboola_url=keboola.url)
        put_inventory(keboola, products=0, day=today.toordinal(), story_ends=today.toordinal())
        keboola.put_table(COSTS_TABLE, columns=COST_COLUMNS, rows=UNIT_COSTS)
        if given.demo_command in ("run", "check"):
            return run_command(given.demo_command, given, settings)
        if given.demo_command == "fail":
            return _fail(settings, keboola, today, console)
        console.text(f"A local Keboola with {len(CAST)} products, and a PostgreSQL below {settings.state}.\n")
        exit_code = _load(settings, today, console)
    if exit_code == 0:
        _show(settings, console)
    return exit_code


def _load(settings: Settings, today: date, console: Console, *, quiet: bool = False) -> int:
    """The mornings before today, and the daily load of today; returns its exit code."""
    _play(settings, today, console)
    return _daily_load(settings, today, quiet=quiet)


def _daily_load(settings: Settings, today: date, *, quiet: bool) -> int:
    run = argparse.Namespace(jobs=[], quiet=quiet, wait=True, accept=[], accept_shrink=[], date=today)
    return run_command("run", run, settings)


def _fail(settings: Settings, keboola: KeboolaServer, today: date, console: Console) -> int:
    """Play a bad morning: a renamed column, the mail that cron would send, gold as it was, and what heals it."""
    from sandbox.inventory import STOCK_COLUMNS, STOCK_TABLE, stock

    if exit_code := _load(settings, today, console, quiet=True):
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
    console.text("\nHere the column has its old name again. This heals it:\n")
    console.text(f"    {how_to_type('run', settings)}")
    return 0 if (exit_code, after) == (1, before) else 1


def _play(settings: Settings, today: date, console: Console) -> None:
    """Load each day before today that is not loaded yet, each in a transaction of its own, all on one connection.

    Without gold and checks: the daily load that comes after makes and runs them.
    """
    from lib.elt_schema.installation import install
    from lib.errors import DatabaseError, LoadError, LockTimeout, ScriptError
    from lib.postgres.connection import Database, query
    from lib.postgres.driver_errors import translated
    from lib.postgres.run_lock import release_run_lock, run_name, take_run_lock
    from lib.run.plan import make_plan, read_project
    from lib.stop import StopSignal, run_stoppable

    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, 0, -1)]
    # a group that somebody added loads from a table which is not here: the run of today says so
    groups = [
        group
        for group in make_plan(read_project(settings.root)).groups
        if all(job.load.extract.table in _tables(today, today) for job in group if job.load)
    ]

    stop = StopSignal()

    def play() -> None:
        connection = Database(settings, stop).connect(run_name(datetime.now(UTC)))
        try:
            with translated("the mornings before today"):
                take_run_lock(connection, stop.pause)
                install(connection)
                loaded: set[date] = set()
                if query(connection, "SELECT to_regclass('silver.loaded_days')") != [(None,)]:
                    loaded = {day for (day,) in query(connection, "SELECT day FROM silver.loaded_days")}
                _refuse_another_cast(connection, settings)
                missing = [day for day in days if day not in loaded]
                if missing and groups:
                    console.text(f"Loading {len(missing)} mornings before today, {missing[0]} to {missing[-1]} ...\n")
                for day in missing:
                    try:
                        with translated("loading"):
                            for group in groups:
                                _load_morning(connection, group, day, today)
                    except (ScriptError, LoadError, DatabaseError) as error:
                        hint = f"\n    {OPEN_PSQL}" if isinstance(error, LockTimeout) else ""
                        raise type(error)(f"the morning of {day}: {error}{hint}") from error
                    stop.raise_if_requested()
        finally:
            release_run_lock(connection)
            connection.close()

    run_stoppable(play, stop)


def _refuse_another_cast(connection: Connection, settings: Settings) -> None:
    """A demo of an older version knew other products; their mornings and these tell no story together."""
    from lib.errors import DatabaseError
    from lib.postgres.connection import query
    from sandbox.inventory import CAST

    if query(connection, "SELECT to_regclass('silver.products')") == [(None,)]:
        return
    ((all_products, known),) = query(
        connection,
        "SELECT count(*), count(*) FILTER (WHERE product_sku = ANY(%s)) FROM silver.products",
        ([member.sku for member in CAST],),
    )
    if all_products and not known:
        raise DatabaseError(
            f"{settings.state} holds the sample products of another version of the demo. To begin anew:\n"
            f"    {how_to_type('stop', settings)}\n    rm -r {settings.state}"
        )


def _tables(day: date, today: date) -> dict[str, tuple[Sequence[str], Iterable[Sequence[str]]]]:
    """Columns and rows of the tables of this morning, by their names in Keboola."""
    from sandbox import inventory

    number, story_ends = day.toordinal(), today.toordinal()
    return {
        inventory.PRODUCTS_TABLE: (inventory.PRODUCT_COLUMNS, inventory.products(0, number, story_ends=story_ends)),
        inventory.STOCK_TABLE: (inventory.STOCK_COLUMNS, inventory.stock(0, day=number, story_ends=story_ends)),
        inventory.COSTS_TABLE: (inventory.COST_COLUMNS, inventory.UNIT_COSTS),
    }


def _load_morning(connection: Connection, group: Sequence[Job], day: date, today: date) -> None:
    """Publish what one morning brought, the group whole or not at all."""
    from psycopg2 import sql
    from psycopg2.extras import execute_values

    from lib.extract import SourceTable
    from lib.load.bronze import publish_bronze
    from lib.load.contract import match, read_contract
    from lib.load.guards import Accepted
    from lib.load.staging import create_staging, drop_staging
    from lib.postgres.transaction import TransactionSettings, transaction
    from lib.transform.scripts import run_script

    tables = _tables(day, today)
    with transaction(connection, TransactionSettings(run_date=day)), connection.cursor() as cursor:
        for job in group:
            for script in job.of_layer("bronze"):
                run_script(connection, script)
            if load := job.load:
                columns, rows = tables[load.extract.table]
                source = SourceTable(load.extract.table, tuple(columns), rows=None, has_nulls=False, version="")
                contract = read_contract(connection, load)
                found = match(contract, source).found
                staging = create_staging(connection, f"demo_{job.name}", contract, found, source)
                places = [columns.index(column) for column in found.values()]
                texts = [[row[place] for place in places] for row in rows]
                names = sql.SQL(", ").join(map(sql.Identifier, staging.columns))
                insert = sql.SQL("INSERT INTO {} ({}) VALUES %s").format(staging.identifier, names)
                execute_values(cursor, insert.as_string(connection), texts, page_size=1000)
                accepted = Accepted(frozenset({(job.name, "shrink"), (job.name, "empty")}))
                publish_bronze(connection, load, contract, staging, len(texts), accepted)
                drop_staging(connection, staging.name)
            for script in job.of_layer("silver"):
                run_script(connection, script)


def _ask(settings: Settings, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Headers and rows of one question to the demo's database."""
    from lib.postgres.connection import Database

    connection = Database(settings).connect("elt demo")
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return [column.name for column in cursor.description or ()], cursor.fetchall()
    finally:
        connection.close()


def _show(settings: Settings, console: Console) -> None:
    """What an analyst would see, and what a newcomer may type next."""
    for question, sql in TOUR:
        console.text(f"\n{question}\n\n{sql};\n")
        console.table(*_ask(settings, sql))
    console.text("\nNext:\n")
    for name, hint in (
        ("psql", "look around: \\d+ gold.product_status_summary"),
        ("run products", "load one job again, with all that depends on it"),
        ("status", "the runs, and how old each table is"),
        ("fail", "play a bad morning: what cron mails, and what heals it"),
    ):
        console.text(f"    {how_to_type(name, settings)}{' ' * (14 - len(name))}{hint}")
    console.text(f"\nThe PostgreSQL goes on running; to end it: {how_to_type('stop', settings)}")
