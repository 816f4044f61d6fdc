"""The psql script in docs/operations.md takes a mistyped day out of every shipped history."""

from __future__ import annotations

import random
import subprocess
from datetime import date, timedelta

import pytest

from tests.support.databases import EmptyDatabase
from tests.support.mornings import Mornings
from tests.support.readme import blocks
from tests.support.warehouse import product, random_rows, stock

FIRST = date(2026, 1, 1)


def forget(database: EmptyDatabase, day: date) -> str:
    """Type the script with this day. Returns what psql prints."""
    (script,) = [text for text in blocks("sql", "Take back a load") if "forget_day" in text]
    address = " ".join(f"{name}={value}" for name, value in database.connect_args.items())
    done = subprocess.run(
        [database.server.psql, "-Xq", "-v", "ON_ERROR_STOP=1", "-d", address],
        input=script.replace("2026-01-15", f"{day}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def day_of(dice: random.Random) -> tuple[list[dict], list[dict]]:
    """Rows of any kind; a warehouse always has the same name, because silver keeps only the last one."""
    products, rows = random_rows(dice)
    named = {"warehouse_name": "Praha", "warehouse_identifier": "PRG"}
    return products, [{**row, **named} for row in rows]


def play(mornings: Mornings, database: EmptyDatabase, seed: int) -> None:
    """Load days in any order; forget one that is not the last one loaded."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    mornings.begin_anew()
    numbers = dice.sample(range(9), 5)
    for number in numbers:
        mornings.morning(FIRST + timedelta(days=number), *day_of(dice))
    wrong = FIRST + timedelta(days=dice.choice(numbers[:-1]))
    assert forget(database, wrong) == ""
    mornings.loads = [load for load in mornings.loads if load.day != wrong]
    mornings.assert_answers_are_right()
    mornings.assert_checks_pass(
        but=["checks/every_product_link_has_stock.sql", "checks/every_stock_row_has_a_product.sql"]
    )


def test_gold_is_that_of_a_warehouse_that_never_had_the_day(database: EmptyDatabase) -> None:
    mornings = Mornings(database.connect())
    for seed in range(2):
        play(mornings, database, seed)


@pytest.mark.long
def test_gold_is_that_of_a_warehouse_that_never_had_the_day_many_times(database: EmptyDatabase) -> None:
    mornings = Mornings(database.connect())
    for seed in range(2, 100):
        play(mornings, database, seed)


def test_the_day_that_was_loaded_last_is_not_forgotten(database: EmptyDatabase) -> None:
    mornings = Mornings(database.connect())
    for number in range(2):
        mornings.morning(FIRST + timedelta(days=number), [product()], [stock(quantity_available=str(number))])
    before = mornings.sql("SELECT * FROM silver.stock_history ORDER BY 1, 2, 3")
    assert "Load today again first" in forget(database, FIRST + timedelta(days=1))
    assert "No load of this day is known." in forget(database, FIRST + timedelta(days=400))
    assert mornings.sql("SELECT * FROM silver.stock_history ORDER BY 1, 2, 3") == before
    mornings.assert_answers_are_right()
