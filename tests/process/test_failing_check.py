"""A check that fails and one that warns, on the shipped jobs."""

from __future__ import annotations

from datetime import date, timedelta

from sandbox.inventory import put_inventory
from tests.support.checkout import Morning
from tests.support.mornings import VIEWS


def test_a_failing_check_keeps_yesterdays_warehouse_and_one_that_warns_shows_in_status(morning: Morning) -> None:
    yesterday, today = date.today() - timedelta(days=3), date.today()
    assert morning.run("elt_daily_load.py", "--date", str(yesterday)).returncode == 0
    answers = "SELECT * FROM gold.{} ORDER BY 1, 2, 3"
    views = [view for view in VIEWS if view not in ("dim_date", "data_quality_summary", "load_status")]
    before = [morning.database.sql(answers.format(view)) for view in VIEWS]
    # somebody changes a history by hand, so it no longer adds up
    morning.database.sql("DELETE FROM silver.stock_history WHERE product_sku = 'HW-000002'")
    put_inventory(morning.keboola, day=200, odd_names=True)
    failed = morning.run("elt_daily_load.py")
    assert failed.returncode == 1 and "checks/daily_facts_add_up.sql" in failed.stdout.splitlines()[-1]
    after = [morning.database.sql(answers.format(view)) for view in VIEWS]
    changed = [VIEWS.index(view) for view in ("fact_inventory_daily", "quarantined_stock", "load_status")]
    assert [rows for place, rows in enumerate(after) if place not in changed] == [
        rows for place, rows in enumerate(before) if place not in changed
    ]
    ((day, published_at, imported_at, status, _, error, sentence),) = after[VIEWS.index("load_status")]
    assert (day, status, published_at) == (yesterday, "failed", before[VIEWS.index("load_status")][0][1])
    assert imported_at is not None and error == "checks/daily_facts_add_up.sql: check failed: 2 rows"
    assert sentence == f"gold holds {day}, loaded {published_at:%Y-%m-%d %H:%M} UTC; the last run failed: {error}"
    assert morning.database.sql("SELECT day FROM silver.loaded_days") == [(yesterday,)]

    # loading the day again repairs it; then a later day is loaded and two days are missing: a warning
    put_inventory(morning.keboola, day=1, odd_names=True)
    assert morning.run("elt_daily_load.py", "--date", str(yesterday)).returncode == 0
    assert [morning.database.sql(answers.format(view)) for view in views] == [
        rows for view, rows in zip(VIEWS, before, strict=True) if view in views
    ]
    warned = morning.run("elt_daily_load.py", "--date", str(today))
    assert warned.returncode == 0 and "checks/no_day_is_missing.sql: check failed: 2 rows" in warned.stdout
    status = morning.run("main.py", "status").stdout
    assert "checks that warn" in status and "checks/no_day_is_missing.sql" in status.split("checks that warn")[1]
