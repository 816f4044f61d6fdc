"""Runs the scripts on rows of a test: a warehouse, a product, a stock row, and the comparison with the oracle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

from tests.support import ROOT, oracle
from tests.support.databases import sql

SCRIPTS = ROOT / "sql_scripts"


JOBS = {name: job for name, job in json.loads((ROOT / "elt_jobs.json").read_text()).items() if name[0] != "$"}


#: in the order of a run: bronze before the load, gold after silver
TRANSFORMS = [script for job in JOBS.values() for script in job["transform"]]


ORDER = sorted(TRANSFORMS, key=lambda script: ["bronze", "silver", "gold"].index(script.split("/")[0]))


CHECKS = [
    check if isinstance(check, str) else check["script"] for job in JOBS.values() for check in job.get("checks", [])
]


#: checks that only warn; they may fail here, because test rows differ much from one day to the next
WARNINGS = ["checks/no_day_is_missing.sql", "checks/issues_have_not_doubled.sql"]


HELPERS = sorted(path.name for path in (ROOT / "lib" / "elt_schema").glob("*.sql"))


class Warehouse:
    """A database with schemas, helpers and tables. The scripts load it, without the rest of the pipeline."""

    def __init__(self, connection: Connection) -> None:
        """Create all schemas anew; keep schema elt if it is installed."""
        self.connection = connection
        self.sql("DROP SCHEMA IF EXISTS bronze, silver, gold CASCADE; CREATE SCHEMA IF NOT EXISTS elt")
        self.sql("CREATE SCHEMA bronze; CREATE SCHEMA silver; CREATE SCHEMA gold")
        if self.sql("SELECT to_regproc('elt.to_text')") == [(None,)]:
            for name in HELPERS:
                self.sql((ROOT / "lib" / "elt_schema" / name).read_text(encoding="utf-8"))
        self.run([script for script in ORDER if script.startswith("bronze/")])

    def sql(self, text: str) -> list[tuple]:
        return sql(self.connection, text)

    def run(self, scripts: Sequence[str]) -> None:
        """Run each script in one call and without temporary tables of others, as `psql -f` does."""
        for script in scripts:
            self.sql((SCRIPTS / script).read_text(encoding="utf-8"))
            self.sql("DISCARD TEMP")

    def put(self, products: Sequence[Mapping], stock: Sequence[Mapping]) -> None:
        """Replace what bronze holds."""
        for table, columns, rows in (
            ("bronze.products", oracle.PRODUCT_COLUMNS, products),
            ("bronze.products_inventory_locations", oracle.STOCK_COLUMNS, stock),
        ):
            self.sql(f"DELETE FROM {table}")
            with self.connection.cursor() as cursor:
                values = [[row[column] for column in columns] for row in rows]
                execute_values(cursor, f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s", values)

    def load(self, products: Sequence[Mapping], stock: Sequence[Mapping] = ()) -> None:
        """Replace what bronze holds and run every other script."""
        self.put(products, stock)
        self.run([script for script in ORDER if not script.startswith("bronze/")])

    def reload(self, products: Sequence[Mapping], stock: Sequence[Mapping] = ()) -> None:
        """Load a warehouse again: without bronze and gold scripts, as on every day after the first."""
        self.put(products, stock)
        self.run([script for script in ORDER if script.startswith("silver/")])

    def broken(self, check: str) -> list[tuple]:
        return self.sql((SCRIPTS / check).read_text(encoding="utf-8"))

    def issues(self) -> list[tuple]:
        """Issues as (rule, key, column, value received, value used)."""
        return self.sql(
            "SELECT rule, row_key, column_name, value_received, value_used FROM silver.data_quality_issues"
            " ORDER BY rule, row_key, column_name, occurrence"
        )


def product(**different: str | None) -> dict[str, str | None]:
    """A good product with link-a."""
    return {
        "sku": "A1",
        "name": "Signer",
        "product_type": "wallet",
        "is_active": "1",
        "inventory_locations": "link-a",
        "weight_value": "250",
        "weight_unit": "g",
        "dimensions_length": "10",
        "dimensions_width": "5",
        "dimensions_height": "2",
        "dimensions_unit": "cm",
        **different,
    }


def stock(**different: str | None) -> dict[str, str | None]:
    """A good stock row of link-a."""
    return {
        "json_parentid": "link-a",
        "warehouse_id": "101",
        "warehouse_name": "Praha",
        "warehouse_identifier": "PRG",
        "quantity_available": "10",
        "quantity_on_hand": "8",
        "quarantined_quantity": "1",
        "quantity_unavailable": "2",
        **different,
    }


def assert_equals_the_oracle(warehouse: Warehouse, products: Sequence[Mapping], stock: Sequence[Mapping]) -> None:
    """Every cell of silver and gold equals the expected one."""
    expected = oracle.recompute(products, stock)
    assert {row[0]: row[1:] for row in warehouse.sql("SELECT * FROM silver.products")} == expected.products
    levels = warehouse.sql(
        "SELECT product_sku, warehouse_id, warehouse_name, warehouse_identifier, quantity_available, quantity_on_hand,"
        " quantity_on_hand_received, quarantined_quantity, quantity_unavailable, bronze_row_count"
        " FROM silver.stock_levels"
    )
    assert {row[:2]: row[2:] for row in levels} == expected.stock_levels
    issues = warehouse.sql(
        "SELECT rule, row_key, column_name, occurrence, severity, job, value_received, value_used, pieces"
        " FROM silver.data_quality_issues"
    )
    assert set(issues) == expected.issues
    summary = warehouse.sql("SELECT * FROM gold.product_status_summary")
    assert {row[0]: row[1:] for row in summary} == expected.product_status_summary
    assert len(summary) == len(expected.product_status_summary)


def random_rows(dice: random.Random) -> tuple[list[dict], list[dict]]:
    """A small inventory with all kinds of errors. It has few SKUs, links and warehouses, so they often coincide."""
    links = ["", None, *(f"link-{number}" for number in range(6))]
    # Keboola makes a link from its row, so two SKUs never share one
    skus = {link: dice.choice(["", None, " ", "A1", "B2", " B2", "C3", "ž4"]) for link in links[2:]}
    products = []
    for _ in range(dice.randrange(9)):
        link = dice.choice(links)
        products.append(
            product(
                sku=skus.get(link, dice.choice(["A1", "D4", ""])),
                name=dice.choice(["Signer", *TEXTS]),
                product_type=dice.choice(["wallet", "cable", *TEXTS]),
                is_active=dice.choice(["1", "1", "", None, "0", "yes", "True", " 1"]),
                inventory_locations=link,
                weight_value=dice.choice(NUMBERS),
                weight_unit=dice.choice(["g", "KG", " oz", "lb", "", None, "t", "\u212ag"]),
                **{column: dice.choice(NUMBERS) for column in oracle.DIMENSIONS},
                dimensions_unit=dice.choice(["cm", "Mm", "m ", "IN", "", None, "ft"]),
            )
        )
    rows = []
    for _ in range(dice.randrange(25)):
        rows.append(
            stock(
                json_parentid=dice.choice([*links, "gone"]),
                warehouse_id=dice.choice(["101", "102", " 101", "", None]),
                warehouse_name=dice.choice(["Praha", "Brno", *TEXTS[:7]]),
                warehouse_identifier=dice.choice(["PRG", "", None, "P\rG"]),
                **{column: dice.choice(NUMBERS) for column in oracle.QUANTITIES},
            )
        )
        if dice.random() < 0.4:  # duplicates, identical or similar
            column = dice.choice(oracle.STOCK_COLUMNS)
            rows.append({**rows[-1], column: dice.choice([rows[-1][column], "101", "7", "0.0", "", "link-1"])})
    return products, rows


TEXTS = ("", None, " ", 'a "b"', "x\ny", "x\r\n\u2028y\x85", "\v", "\\.", "ž", "\U0001f510", "a,b", "(a)", "\\N")


NUMBERS = ("0", "1", "5", "9", "10", "10.0", " 7 ", "-2", "1.5", "n/a", "", None, "1e2", "+3", "9" * 20)
