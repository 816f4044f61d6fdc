"""Every cell of every gold view after several days, compared with a recomputation in plain Python. Also history, keys,
forecasts and the checks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg2
import pytest

from lib.postgres.run_lock import LOCK
from tests.support.breaks import BREAK_MORE_DAYS, BREAK_OTHERWISE
from tests.support.databases import EmptyDatabase
from tests.support.mornings import Mornings
from tests.support.oracle import DIMENSIONS
from tests.support.oracle_history import WINDOW
from tests.support.warehouse import (
    SCRIPTS,
    product,
    random_rows,
    stock,
)

MONDAY = date(2026, 1, 5)


@pytest.fixture(scope="module")
def answering(module_database: EmptyDatabase) -> Mornings:
    """One warehouse for all tests here, so that its views are created once."""
    mornings = Mornings(module_database.connect())
    mornings.morning(MONDAY, [])
    return mornings


@pytest.fixture
def mornings(answering: Mornings) -> Mornings:
    answering.begin_anew()
    return answering


# ---- the oracle -----------------------------------------------------------------------------------------------------


def changed(
    dice: random.Random, products: list[dict], rows: list[dict], churn: float, moving: float
) -> tuple[list[dict], list[dict]]:
    """The next day of an inventory: most rows stay, some change. `churn`: share of rows that appear or disappear."""
    if not products or dice.random() < churn:
        return random_rows(dice)
    other_products, other_rows = random_rows(dice)
    products = [
        {**row, "name": dice.choice(["Signer", "Vault", None])} if dice.random() < 0.1 else row for row in products
    ]
    products = [row for row in products if dice.random() > churn] + [
        row for row in other_products if dice.random() < 0.1
    ]
    rows = [
        {**row, "quantity_available": str(dice.randrange(12))} if dice.random() < moving else row
        for row in rows
        if dice.random() > churn / 2
    ]
    rows += [row for row in other_rows if dice.random() < churn / 2]
    skus = {row["inventory_locations"]: row["sku"] for row in reversed(products)}  # a link has one SKU
    return [
        {**row, "sku": skus[row["inventory_locations"]] if row["inventory_locations"] else row["sku"]}
        for row in products
    ], rows


def measured(dice: random.Random, products: list[dict]) -> list[dict]:
    """Give half of the products a volume, because few random products have one."""
    sides = {column: dice.choice(["2", "3.5", "0.125"]) for column in DIMENSIONS}
    return [{**row, **sides, "dimensions_unit": "cm"} if dice.random() < 0.5 else row for row in products]


#: rare cases; each must occur in at least one of the random days
RARE = {
    "a forecast": "SELECT FROM gold.stock_forecast WHERE expected_stock_out_date IS NOT NULL",
    "low": "SELECT FROM gold.reorder_proposals WHERE reason = 'below its threshold'",
    "ordered later": "SELECT FROM gold.reorder_proposals, silver.loaded_days WHERE is_current AND order_by > day",
    "a slow mover": "SELECT FROM gold.slow_movers",
    "a long quarantine": "SELECT FROM gold.quarantined_stock WHERE days_in_quarantine > 2",
    "unknown in quarantine": "SELECT FROM gold.quarantined_stock WHERE product_sku = ''",
}


def play(mornings: Mornings, seed: int, count: int) -> set[str]:
    """Load some days of a random inventory: in any order, some twice, with gaps. Many days are loaded in order.

    Returns the cases of RARE that occurred.
    """
    dice = random.Random(seed)
    mornings.begin_anew()
    # few changes: products stay long enough for a forecast, and some do not move
    churn, moving = (0.1, 0.3) if count < WINDOW else (0.002, 0.02)
    day, (products, rows), keys = MONDAY, random_rows(dice), {}
    for _ in range(count):
        mornings.morning(day, measured(dice, products), rows)
        before, keys = keys, mornings.keys()
        assert {place: keys[place] for place in keys & before.keys()} == {
            place: before[place] for place in keys & before.keys()
        }
        if dice.random() < 0.15:
            mornings.set_threshold(dice.choice(["*", "wallet", "cable"]), dice.randrange(9))
            mornings.set_plan(dice.choice(["*", "wallet"]), *dice.choices([None, 0, 3, 40], k=2))
        newest = max(load.day for load in mornings.loads)
        earlier = [newest - timedelta(days=dice.randrange(5))] if count < WINDOW and dice.random() < 0.3 else []
        day = dice.choice(earlier or [newest + timedelta(days=dice.choice([1, 1, 1, 2]))])
        products, rows = changed(dice, products, rows, churn, moving)
    mornings.assert_answers_are_right()
    # these two fail by design: links have no rows, and thresholds were edited after the load
    mornings.assert_checks_pass(but=["checks/every_product_link_has_stock.sql", "checks/history_is_todays_stock.sql"])
    columns = ", ".join(f"EXISTS ({query})" for query in RARE.values())
    return {what for what, is_there in zip(RARE, mornings.sql(f"SELECT {columns}")[0], strict=True) if is_there}


#: seeds that load many days; the first one has all rare cases
MANY_DAYS = {49, *range(60, 330, 30)}


def play_all(mornings: Mornings, seeds: Sequence[int]) -> None:
    seen: set[str] = set()
    for seed in seeds:
        try:
            seen |= play(mornings, seed, WINDOW + 3 if seed in MANY_DAYS else 2 + seed % 3)
        except (AssertionError, psycopg2.Error) as difference:
            raise AssertionError(f"seed {seed}") from difference
    assert seen == set(RARE)


def test_every_cell_of_gold_equals_a_recomputation_in_plain_python(mornings: Mornings) -> None:
    play_all(mornings, [*range(5), 49])


@pytest.mark.long
def test_every_cell_of_gold_equals_a_recomputation_in_plain_python_many_times(mornings: Mornings) -> None:
    play_all(mornings, range(5, 330))


# ---- history --------------------------------------------------------------------------------------------------------


def days(*offsets: int) -> list[date]:
    return [MONDAY + timedelta(days=offset) for offset in offsets]


def ranges(mornings: Mornings) -> list[tuple]:
    """The ranges of A1 in warehouse 101 in the history, with their pieces."""
    return mornings.sql(
        "SELECT valid_from, valid_to, quantity_available FROM silver.stock_history WHERE product_sku = 'A1'"
        " ORDER BY valid_from"
    )


def pieces(mornings: Mornings, day: date, quantity: int | None) -> None:
    """Load a day with this number of pieces of A1; None: without A1."""
    rows = [] if quantity is None else [stock(quantity_available=str(quantity), quantity_on_hand="0")]
    products = [product()] if quantity is not None else []
    mornings.morning(day, [*products, product(sku="B2", inventory_locations="")], rows)


def test_a_day_without_change_adds_no_row(mornings: Mornings) -> None:
    for day in days(0, 1, 2):
        pieces(mornings, day, 10)
    assert ranges(mornings) == [(MONDAY, date.max, 10)]


def test_a_second_load_of_the_day_replaces_it(mornings: Mornings) -> None:
    first, second = days(0, 1)
    pieces(mornings, first, 10)
    pieces(mornings, second, 7)
    keys = mornings.keys()
    pieces(mornings, second, 8)
    assert ranges(mornings) == [(first, second, 10), (second, date.max, 8)]
    pieces(mornings, second, 10)
    assert ranges(mornings) == [(first, date.max, 10)]
    assert mornings.keys() == keys


def test_a_day_that_is_loaded_later_goes_between_its_neighbours(mornings: Mornings) -> None:
    first, between, last = days(0, 1, 2)
    pieces(mornings, first, 10)
    pieces(mornings, last, 8)
    pieces(mornings, between, 9)
    assert ranges(mornings) == [(first, between, 10), (between, last, 9), (last, date.max, 8)]
    pieces(mornings, between, 8)
    assert ranges(mornings) == [(first, between, 10), (between, date.max, 8)]
    pieces(mornings, between, None)
    assert ranges(mornings) == [(first, between, 10), (last, date.max, 8)]
    pieces(mornings, between, 10)
    assert ranges(mornings) == [(first, last, 10), (last, date.max, 8)]


def test_a_day_before_all_others_and_one_in_a_long_range(mornings: Mornings) -> None:
    before, first, middle, last = days(-1, 0, 1, 2)
    for day in (first, middle, last):
        pieces(mornings, day, 10)
    pieces(mornings, before, 3)
    assert ranges(mornings) == [(before, first, 3), (first, date.max, 10)]
    pieces(mornings, middle, 4)
    assert ranges(mornings) == [(before, first, 3), (first, middle, 10), (middle, last, 4), (last, date.max, 10)]
    mornings.assert_answers_are_right()


def test_a_product_that_leaves_and_comes_back_has_a_gap(mornings: Mornings) -> None:
    for day, quantity in zip(days(0, 1, 2), (10, None, 10), strict=True):
        pieces(mornings, day, quantity)
    first, gone, back = days(0, 1, 2)
    assert ranges(mornings) == [(first, gone, 10), (back, date.max, 10)]
    movements = "SELECT date_key, opening_stock, stock_change, closing_stock FROM gold.stock_movements"
    assert mornings.sql(f"{movements} WHERE product_sku = 'A1' ORDER BY 1") == [
        (first, None, None, 10),
        (gone, 10, -10, 0),
        (back, 0, 10, 10),
    ]
    mornings.assert_checks_pass()


def test_last_months_report_shows_last_months_name(mornings: Mornings) -> None:
    first, second = days(0, 1)
    mornings.morning(first, [product(name="Signer")], [stock()])
    mornings.morning(second, [product(name="Signer Two")], [stock()])
    report = "SELECT product_name FROM gold.fact_inventory_daily JOIN gold.dim_product USING (product_key)"
    assert mornings.sql(f"{report} WHERE date_key = '{first}'") == [("Signer",)]
    assert mornings.sql(f"{report} WHERE date_key = '{second}'") == [("Signer Two",)]
    assert mornings.sql(
        "SELECT product_name, is_current FROM gold.dim_product WHERE product_sku = 'A1' ORDER BY valid_from"
    ) == [
        ("Signer", False),
        ("Signer Two", True),
    ]


def test_stock_without_a_product_is_in_the_facts_under_the_unknown_one(mornings: Mornings) -> None:
    mornings.morning(
        MONDAY, [product()], [stock(), stock(json_parentid="gone", quantity_available="3", quantity_on_hand="5")]
    )
    facts = "SELECT product_key, quantity_available, quantity_on_hand FROM gold.{} WHERE product_key = 0"
    for fact in ("fact_inventory", "fact_inventory_daily"):
        assert mornings.sql(facts.format(fact)) == [(0, 3, 3)]
    assert mornings.sql("SELECT quantity_available, quantity_without_product FROM gold.warehouse_stock_summary") == [
        (10, 3)
    ]


def test_a_warehouse_keeps_its_key_and_its_last_name(mornings: Mornings) -> None:
    mornings.morning(MONDAY, [product()], [stock(), stock(warehouse_id="102", warehouse_name="Brno")])
    keys = mornings.keys()
    mornings.morning(MONDAY + timedelta(days=1), [product()], [stock(warehouse_name="Praha 2")])
    assert mornings.keys() == keys
    assert mornings.sql("SELECT warehouse_id, warehouse_name, is_loaded FROM gold.dim_warehouse ORDER BY 1") == [
        ("101", "Praha 2", True),
        ("102", "Brno", False),
        ("unknown", "Unknown warehouse", False),
    ]


# ---- questions ------------------------------------------------------------------------------------------------------


def after_days(mornings: Mornings, course: Sequence[int | None]) -> None:
    """Give A1 this number of pieces on each day; None: A1 is missing."""
    mornings.begin_anew()
    last = MONDAY + timedelta(days=len(course) - 1)
    mornings.sql("INSERT INTO silver.products SELECT 'A1', 'Signer', 'wallet', 1, 1, 1, 1, true, true")
    mornings.sql(f"INSERT INTO silver.product_stock VALUES ('A1', {course[-1]}, 0, 0, 0, 1)")
    mornings.sql(
        f"INSERT INTO silver.loaded_days SELECT day, day = '{last}', 1, 1, 1"
        f" FROM generate_series('{MONDAY}', '{last}', interval '1 day') AS day"
    )
    for place, pieces in enumerate(course):
        if pieces is not None:
            mornings.sql(
                f"INSERT INTO silver.product_stock_history SELECT 'A1', day, CASE WHEN day = '{last}' THEN 'infinity'"
                f" ELSE day + 1 END, {pieces}, 'In Stock' FROM (VALUES ('{MONDAY}'::date + {place})) AS days (day)"
            )


def forecast(mornings: Mornings, course: Sequence[int | None]) -> tuple:
    """The forecast of A1 after days with these pieces; None: A1 is missing."""
    after_days(mornings, course)
    (found,) = mornings.sql(
        "SELECT days_with_data, average_daily_decrease, days_of_cover, expected_stock_out_date FROM gold.stock_forecast"
    )
    return found


def test_a_forecast_needs_28_days_and_the_one_before_them(mornings: Mornings) -> None:
    course = [100 - place for place in range(WINDOW + 1)]
    last = MONDAY + timedelta(days=WINDOW)
    assert forecast(mornings, course[1:]) == (WINDOW, None, None, None)
    assert forecast(mornings, course) == (WINDOW + 1, 1, 72, last + timedelta(days=72))
    assert forecast(mornings, [500, *course]) == (WINDOW + 1, 1, 72, last + timedelta(days=73))
    assert forecast(mornings, [*course[:5], None, *course[6:]]) == (WINDOW, None, None, None)


def test_stock_that_comes_in_says_nothing_about_how_fast_it_goes(mornings: Mornings) -> None:
    course = [100 - place for place in range(WINDOW)]
    average = round(Decimal(WINDOW - 1) / WINDOW, 4)
    assert forecast(mornings, [*course, 1000])[1] == average
    assert forecast(mornings, [*course, 0])[2:] == (0, None)
    assert forecast(mornings, [*course, -3])[2:] == (0, None)


def test_stock_that_hardly_goes_has_no_stock_out_date(mornings: Mornings) -> None:
    assert forecast(mornings, [10**17] * (WINDOW + 1)) == (WINDOW + 1, 0, None, None)
    assert forecast(mornings, [*[10**17] * WINDOW, 10**17 - 1])[3] is None


def proposal(mornings: Mornings, course: Sequence[int | None], *plan: str) -> tuple | None:
    """Quantity, reason and days until order_by, after days with these pieces; `plan` has the edits of an analyst."""
    after_days(mornings, course)
    mornings.run(["silver/stock_thresholds.sql"])
    for edit in plan:
        mornings.sql(edit)
    rows = mornings.sql(
        "SELECT reorder_quantity, reason, order_by - day FROM gold.reorder_proposals, silver.loaded_days"
        " WHERE is_current"
    )
    return rows[0] if rows else None


LOW, RUNS_OUT = "below its threshold", "runs out before a delivery arrives"
UNKNOWN = f"{LOW}; less than 28 days of history"


def falling(last: int, daily: int = 1) -> list[int]:
    """Pieces on the days of a forecast: `daily` fewer each day, `last` at the end."""
    return [last + daily * ago for ago in range(WINDOW, -1, -1)]


@pytest.mark.parametrize(
    "course, plan, expected",
    [
        # 1 piece a day; lead time 14 days, cover 28 days
        (falling(15), [], None),
        (falling(14), [], (28, RUNS_OUT, 0)),
        (falling(5), [], (37, LOW, 0)),
        (falling(0), [], (42, LOW, 0)),
        (falling(-3), [], (45, LOW, 0)),
        # 5 pieces in 28 days are 7.5 in 42 days; the 5 that are left last 28 days
        ([10] * 14 + [5] * 15, [], (3, LOW, 14)),
        # as many pieces left as 28 days need, so nothing to order
        ([10] * 14 + [5] * 15, ["UPDATE silver.stock_thresholds SET cover_days = 14"], (0, LOW, 14)),
        # the threshold is higher than the demand
        ([6] * 14 + [5] * 15, [], (0, LOW, 126)),
        ([6] * 14 + [4] * 15, [], (1, LOW, 42)),
        # no decrease: no order_by; out of stock: today
        ([5] * 29, [], (0, LOW, None)),
        ([0] * 29, [], (5, LOW, 0)),
        ([6] * 29, [], None),
        # too little history: only the threshold counts
        ([100, 50, 6], [], None),
        ([100, 50, 5], [], (0, UNKNOWN, 0)),
        ([100, 50, 2], [], (3, UNKNOWN, 0)),
        # a row for the type; values that it lacks come from row *
        (falling(20), ["INSERT INTO silver.stock_thresholds VALUES ('wallet', 0, 20, 1)"], (1, RUNS_OUT, 0)),
        (falling(20), ["INSERT INTO silver.stock_thresholds VALUES ('wallet', 0, 20)"], (28, RUNS_OUT, 0)),
        (falling(20), ["UPDATE silver.stock_thresholds SET lead_time_days = 20, cover_days = 2"], (2, RUNS_OUT, 0)),
        (
            falling(14),
            ["UPDATE silver.stock_thresholds SET lead_time_days = NULL, cover_days = NULL"],
            (28, RUNS_OUT, 0),
        ),
        (falling(14), ["INSERT INTO silver.stock_thresholds VALUES ('cable', 99, 1, 1)"], (28, RUNS_OUT, 0)),
        (falling(30), ["INSERT INTO silver.stock_thresholds VALUES ('wallet', 30)"], (12, LOW, 16)),
        (falling(3), ["UPDATE silver.stock_thresholds SET lead_time_days = -9, cover_days = -1"], (2, LOW, 3)),
        (
            falling(3),
            ["UPDATE silver.stock_thresholds SET lead_time_days = 2147483647, cover_days = 2147483647"],
            (2 * 2147483647 - 3, LOW, 0),
        ),
        # inactive products are not ordered
        (falling(5), ["UPDATE silver.products SET is_active = false"], None),
    ],
)
def test_what_to_order_and_until_when(
    mornings: Mornings, course: list, plan: list[str], expected: tuple | None
) -> None:
    assert proposal(mornings, course, *plan) == expected


def test_a_product_that_hardly_goes_is_ordered_without_a_last_day(mornings: Mornings) -> None:
    plan = [f"UPDATE silver.stock_thresholds SET low_stock_threshold = {10**17}"]
    assert proposal(mornings, [*[10**17] * WINDOW, 10**17 - 1], *plan) == (1, LOW, None)


def test_a_slow_mover_has_stock_and_has_not_gone_down_on_28_days(mornings: Mornings) -> None:
    def slow(course: Sequence[int | None]) -> list[tuple]:
        after_days(mornings, course)
        return mornings.sql(f"SELECT total_stock, last_decrease - '{MONDAY}'::date FROM gold.slow_movers")

    assert slow([7] * (WINDOW + 1)) == [(7, None)]
    assert slow([7] * WINDOW) == []
    assert slow([None, *[7] * WINDOW]) == []
    assert slow([0] * (WINDOW + 1)) == []
    assert slow([*[7] * WINDOW, 6]) == []
    assert slow([8, *[7] * WINDOW]) == []
    assert slow([9, 8, *[7] * (WINDOW + 1)]) == [(7, 2)]
    assert slow([*[7] * WINDOW, 70]) == [(70, None)]


def test_quarantine_lasts_since_the_first_day_on_which_there_were_always_pieces(mornings: Mornings) -> None:
    for day, quantity in zip(days(0, 1, 2, 4), ("3", "0", "1", "5"), strict=True):
        mornings.morning(day, [product()], [stock(quarantined_quantity=quantity)])
    held = "SELECT quarantined_quantity, quarantined_since, days_in_quarantine FROM gold.quarantined_stock"
    assert mornings.sql(held) == [(5, days(2)[0], 2)]
    mornings.morning(*days(5), [product(sku="B2", inventory_locations="b")], [stock(json_parentid="b")])
    mornings.morning(*days(6), [product()], [stock(quarantined_quantity="4"), stock(json_parentid="x")])
    columns = "product_sku, product_name, product_status, quarantined_quantity, days_in_quarantine"
    assert mornings.sql(f"SELECT {columns} FROM gold.quarantined_stock ORDER BY 1") == [
        ("", "Unknown product", "Unknown", 1, 0),
        ("A1", "Signer", "Active", 4, 4),
    ]
    mornings.assert_answers_are_right()


# ---- the status of gold ---------------------------------------------------------------------------------------------

STATUS = (
    "SELECT date_key, published_at, sources_imported_at, last_run_status, last_run_error, sentence"
    " FROM gold.load_status"
)


@pytest.fixture
def runs(mornings: Mornings) -> Iterator[Mornings]:
    """A warehouse without runs in its history, before and after the test."""
    forget = "SET timezone = 'UTC'; TRUNCATE elt.runs, elt.job_runs, elt.script_runs RESTART IDENTITY CASCADE"
    mornings.sql(forget)
    yield mornings
    mornings.sql(forget)


def record(mornings: Mornings, status: str, at: str, error: str | None = None, **jobs: str) -> None:
    """A run that ended on January 5 at this hour.

    `jobs` have the status that is named: those that are `published` loaded what was imported an hour before, those that
    are `refined` were published, too, but loaded nothing.
    """
    mornings.sql(
        "INSERT INTO elt.runs (status, run_date, started_at, finished_at, jobs, process, error) VALUES"
        f" ('{status}', '2026-01-05', '2026-01-05 {at}Z', '2026-01-05 {at}Z', '{{{','.join(jobs)}}}', 'x',"
        f" {quoted(error)})"
    )
    for job, ended in jobs.items():
        loaded = f"1, TIMESTAMPTZ '2026-01-05 {at}Z' - INTERVAL '1 hour'" if ended == "published" else "NULL, NULL"
        status, _, reason = ended.replace("refined", "published").partition(": ")
        mornings.sql(
            "INSERT INTO elt.job_runs (run_id, job, status, recorded_at, accepted_shrink, error, rows_loaded,"
            f" source_imported_at) SELECT max(run_id), '{job}', '{status}', '2026-01-05 {at}Z', false,"
            f" {quoted(reason or None)}, {loaded} FROM elt.runs"
        )
        script = {"stock": "stock_levels", "history": "loaded_days"}.get(job, job)
        if status == "published":
            mornings.sql(
                "INSERT INTO elt.script_runs (run_id, job, script, seconds)"
                f" SELECT max(run_id), '{job}', 'silver/{script}.sql', 1 FROM elt.runs"
            )


def quoted(text: str | None) -> str:
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


ALL = {"products": "published", "stock": "published", "history": "refined"}


def at(hour: int) -> datetime:
    return datetime(2026, 1, 5, hour, tzinfo=UTC)


def test_gold_says_that_it_holds_nothing(runs: Mornings) -> None:
    assert runs.sql(STATUS) == [(None, None, None, None, None, "gold holds nothing yet; no run has ended yet")]
    record(runs, "lost", "06:00")
    assert runs.sql(STATUS) == [
        (None, None, None, "lost", None, "gold holds nothing yet; the last run was killed"),
    ]


def test_gold_says_what_it_holds_since_when_and_how_the_last_run_ended(runs: Mornings) -> None:
    runs.morning(MONDAY, [product()], [stock()])
    record(runs, "done", "06:00", **ALL)
    loaded = "gold holds 2026-01-05, loaded 2026-01-05 06:00 UTC"
    assert runs.sql(STATUS) == [(MONDAY, at(6), at(5), "done", None, f"{loaded}; the last run succeeded")]

    # another group, or a part of this one, publishes: tables that it does not load keep their age
    record(runs, "done", "07:00", suppliers="published")
    assert runs.sql(STATUS)[0][1:3] == (at(6), at(5))
    record(runs, "done", "08:00", products="published", stock="refined", history="refined")
    assert runs.sql(STATUS)[0][1:3] == (at(8), at(5))

    # a failed run, in a job or before any job, with an error of several lines
    loaded = "gold holds 2026-01-05, loaded 2026-01-05 08:00 UTC"
    error = "silver/products.sql:60: division by zero"
    record(runs, "failed", "09:00", products=f"failed: {error}\n    SELECT 1/0", stock="held back: products failed")
    assert runs.sql(STATUS)[0][1:] == (at(8), at(5), "failed", error, f"{loaded}; the last run failed: {error}")
    record(runs, "failed", "10:00", "no answer\u2028at all")
    assert runs.sql(STATUS)[0][3:] == ("failed", "no answer", f"{loaded}; the last run failed: no answer")
    record(runs, "failed", "10:00")
    assert runs.sql(STATUS)[0][3:] == ("failed", None, f"{loaded}; the last run failed")
    record(runs, "cancelled", "11:00", "stopped by Ctrl-C")
    assert runs.sql(STATUS)[0][3:] == ("cancelled", "stopped by Ctrl-C", f"{loaded}; the last run was stopped")

    # a run that is still running does not count; one whose session is gone was killed
    runs.sql(f"SELECT pg_advisory_lock{LOCK}")
    runs.sql(
        "INSERT INTO elt.runs (status, run_date, started_at, jobs, process)"
        " VALUES ('running', '2026-01-05', now(), '{}', 'x')"
    )
    assert runs.sql(STATUS)[0][3:] == ("cancelled", "stopped by Ctrl-C", f"{loaded}; the last run was stopped")
    runs.sql("SELECT pg_advisory_unlock_all()")
    assert runs.sql(STATUS)[0][3:] == ("lost", None, f"{loaded}; the last run was killed")
    runs.sql("SET timezone = 'Europe/Prague'")
    assert runs.sql(STATUS)[0][5].startswith("gold holds 2026-01-05, loaded 2026-01-05 09:00 CET; ")


def test_a_run_that_succeeded_does_not_hide_the_failure_of_another_job(runs: Mornings) -> None:
    jobs = {"a": "failed: oops\nand why", "b": "published", "c": "published"}
    record(runs, "failed", "06:00", **jobs)
    record(runs, "done", "07:00", b="published")
    found = "gold holds nothing yet; the last run succeeded, but a failed in run 1: oops"
    assert runs.sql(STATUS)[0][3:] == ("done", None, found)
    record(runs, "done", "08:00", b="published", c="published")  # a was taken out of the registry
    assert runs.sql(STATUS)[0][5].endswith("; the last run succeeded")
    record(runs, "failed", "09:00", **jobs)
    record(runs, "done", "10:00", a="published")
    assert runs.sql(STATUS)[0][5].endswith("; the last run succeeded")


def test_the_age_of_sources_is_unknown_where_one_does_not_say_it(runs: Mornings) -> None:
    record(runs, "done", "06:00", **ALL)
    runs.sql("UPDATE elt.job_runs SET source_imported_at = NULL WHERE job = 'stock'")
    assert runs.sql(STATUS)[0][:3] == (None, at(6), None)


def test_whoever_may_read_gold_may_read_its_status(runs: Mornings) -> None:
    runs.morning(MONDAY, [product()], [stock()])
    record(runs, "done", "06:00", **ALL)
    runs.sql(
        "CREATE ROLE reads_gold; GRANT USAGE ON SCHEMA gold TO reads_gold;"
        " GRANT SELECT ON gold.load_status TO reads_gold"
    )
    try:
        runs.sql("SET ROLE reads_gold")
        assert runs.sql(STATUS)[0][3] == "done"
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            runs.sql("SELECT * FROM elt.runs")
    finally:
        runs.sql("RESET ROLE; DROP OWNED BY reads_gold; DROP ROLE reads_gold")


def test_low_stock_lasts_since_the_first_day_at_or_below_todays_threshold(mornings: Mornings) -> None:
    for day, quantity in zip(days(0, 1, 2, 3), (3, 8, 5, 0), strict=True):
        pieces(mornings, day, quantity)
    low = "SELECT stock_status, quantity_missing, low_since FROM gold.low_stock_products WHERE product_sku = 'A1'"
    assert mornings.sql(low) == [("Out of Stock", 5, days(2)[0])]
    mornings.set_threshold("*", 8)
    assert mornings.sql(low) == [("Out of Stock", 8, MONDAY)]


def test_fewer_than_no_pieces_on_the_shelf_take_no_space(mornings: Mornings) -> None:
    mornings.morning(MONDAY, [product()], [stock(quantity_available="-2", quantity_on_hand="-2")])
    assert mornings.sql("SELECT volume_cm3, space_taken_cm3 FROM gold.product_status_summary") == [(100, 0)]
    assert mornings.sql("SELECT space_taken_cm3, products_without_volume FROM gold.warehouse_stock_summary") == [(0, 0)]


def test_a_threshold_edited_later_changes_no_past_status(mornings: Mornings) -> None:
    first, second = days(0, 1)
    pieces(mornings, first, 8)
    mornings.set_threshold("*", 9)
    assert mornings.sql("SELECT status_entered FROM gold.status_changes") == []
    pieces(mornings, second, 8)
    assert mornings.sql("SELECT date_key, status_left, status_entered FROM gold.status_changes") == [
        (second, "In Stock", "Low Stock")
    ]


def test_the_quality_of_yesterday_stands_beside_todays(mornings: Mornings) -> None:
    first, second = days(0, 1)
    mornings.morning(first, [product(weight_value="")], [stock()])
    summary = "SELECT rule, rows_today, rows_yesterday, share_of_rows, example_key FROM gold.data_quality_summary"
    assert mornings.sql(summary) == [("missing_weight", 1, None, 1, "A1")]
    mornings.morning(second, [product()], [stock()])
    assert mornings.sql(summary) == [("missing_weight", 0, 1, 0, None)]


def test_the_quality_of_data_is_counted_in_pieces(mornings: Mornings) -> None:
    mornings.morning(
        MONDAY,
        [product(weight_value="-1", dimensions_length="x", dimensions_width="y"), product(sku="B2", weight_value="")],
        [
            stock(quantity_available="10", quantity_on_hand="13"),
            stock(warehouse_id="102", quantity_available="4", quantity_on_hand="9", quarantined_quantity="?"),
            stock(warehouse_id="", quantity_available="3", quantity_on_hand="0"),
            stock(warehouse_id="", quantity_available="-2", quantity_on_hand="-5"),
            stock(quantity_available="1"),
            stock(json_parentid="gone", quantity_available="7"),
        ],
    )
    summary = "SELECT rule, rows_today, pieces FROM gold.data_quality_summary ORDER BY rule"
    assert mornings.sql(summary) == [
        ("duplicate_stock_row", 1, 1),
        ("invalid_measure", 3, 15),
        ("missing_dimensions", 1, 15),
        ("missing_warehouse", 2, 1),
        ("missing_weight", 2, 15),
        ("negative_quantity", 2, 7),
        ("on_hand_above_available", 2, 8),
        ("product_without_stock", 1, 0),
        ("quantity_is_no_number", 1, None),
        ("stock_without_product", 1, 7),
    ]
    mornings.morning(MONDAY + timedelta(days=1), [product()], [stock()])
    assert {pieces for _, _, pieces in mornings.sql(summary)} == {0}


# ---- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", BREAK_MORE_DAYS)
def test_a_check_passes_after_some_days_and_names_what_breaks_its_claim(mornings: Mornings, check: str) -> None:
    for day, quantity in zip(days(0, 1, 2), (3, 8, 8), strict=True):
        pieces(mornings, day, quantity)
    assert mornings.broken(check) == []
    assert_breaks(mornings, check, *BREAK_MORE_DAYS[check])


@pytest.mark.parametrize("check, way, named", BREAK_OTHERWISE)
def test_a_check_names_other_breaks_of_its_claim_too(
    mornings: Mornings, check: str, way: str | tuple[str, str, str], named: str
) -> None:
    for day, quantity in zip(days(0, 1, 2), (3, 8, 8), strict=True):
        pieces(mornings, day, quantity)
    if isinstance(way, tuple):
        script, old, new = way
        text = (SCRIPTS / script).read_text(encoding="utf-8")
        assert old in text
        way = text.replace(old, new)
    assert_breaks(mornings, check, way, named)


def assert_breaks(mornings: Mornings, check: str, statement: str, named: str) -> None:
    mornings.sql("BEGIN")
    try:
        mornings.sql(statement)
        rows = mornings.broken(check)
    finally:
        mornings.sql("ROLLBACK")
    assert rows and all(isinstance(row[0], str) for row in rows)
    assert named in str(rows)
