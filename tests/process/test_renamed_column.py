"""A column that was renamed in Keboola, as a person meets it: check, the failed load, the printed command."""

from __future__ import annotations

import re

import pytest

from sandbox.inventory import PRODUCT_COLUMNS, PRODUCTS_TABLE, products
from tests.support.checkout import Morning

# ---- as a person types it -------------------------------------------------------------------------------------------


def rename(morning: Morning, old: str, new: str) -> None:
    columns = [new if column == old else column for column in PRODUCT_COLUMNS]
    morning.keboola.put_table(PRODUCTS_TABLE, columns=columns, rows=lambda: products(50, 1))


def test_check_online_compares_columns_before_anything_was_loaded_and_leaves_nothing(morning: Morning) -> None:
    bronze = morning.folder / "sql_scripts/bronze/products.sql"
    bronze.write_text(bronze.read_text().replace(" name ", " nmae ").replace("products.name", "products.nmae"))
    found = morning.run("main.py", "check", "--online")
    assert found.returncode == 2
    assert "error: in.c-interview_de.products has no column 'nmae'; did you mean 'name'?" in found.stdout
    assert morning.database.sql("SELECT nspname FROM pg_namespace WHERE nspname IN ('elt', 'bronze')") == []


def test_a_renamed_column_is_held_back_and_the_printed_command_loads_it(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    summary = "SELECT * FROM gold.product_status_summary ORDER BY 1"
    before = morning.database.sql(summary)
    rename(morning, "weight_value", "weight")
    held = morning.run("elt_daily_load.py", "--date", "2026-03-04")
    assert held.returncode == 1
    assert morning.database.sql(summary) == before
    command = re.search(
        r"load without it once .*: \S+ (main\.py run --date 2026-03-04 --accept products:missing)",
        held.stdout,
    )
    assert command, held.stdout
    accepted = morning.run(*command[1].split())
    assert accepted.returncode == 0, accepted.stdout
    assert morning.database.sql("SELECT count(weight_g) FROM silver.products") == [(0,)]
    ((sentence,),) = morning.database.sql("SELECT sentence FROM gold.load_status")
    assert ", accepted by hand: products:missing; the last run succeeded" in sentence
    listed = morning.run("main.py", "check", "--online").stdout
    morning.keboola.put_table(
        PRODUCTS_TABLE, columns=[*PRODUCT_COLUMNS, "ean", "colour"], rows=[(*row, "", "") for row in products(50, 1)]
    )
    well = morning.run("main.py", "check", "--online")
    assert well.returncode == 0
    assert "in.c-interview_de.products, 13 columns, 50 rows; not in bronze.products: 'ean', 'colour'" in well.stdout
    assert "error: in.c-interview_de.products has no column 'weight_value'; did you mean 'weight'?" in listed


@pytest.mark.parametrize("words", [["--accept", "prodcts:shrink"], ["--accept-shrink", "prodcts"]])
def test_a_job_that_there_is_not_cannot_be_accepted(morning: Morning, words: list[str]) -> None:
    told = morning.run("main.py", "run", *words)
    assert told.returncode == 2 and "no job is named 'prodcts'; did you mean 'products'?" in told.stdout
