"""A warehouse that is loaded day by day, and the expected answers of gold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

from psycopg2.extensions import connection as Connection

from tests.support.oracle_history import Answers, Load
from tests.support.warehouse import (
    CHECKS,
    ORDER,
    WARNINGS,
    Warehouse,
)

#: surrogate keys are replaced by the SKU and day, or the warehouse, that they refer to
SHOWN = {
    "dim_product": "SELECT {columns} FROM gold.dim_product",
    "dim_warehouse": "SELECT {columns} FROM gold.dim_warehouse",
    **dict.fromkeys(
        ("fact_inventory", "fact_inventory_daily"),
        "SELECT date_key, product_sku, valid_from, warehouse_id, fact.quantity_available, fact.quantity_on_hand,"
        " fact.quarantined_quantity, fact.quantity_unavailable FROM gold.{view} AS fact"
        " JOIN gold.dim_product USING (product_key) JOIN gold.dim_warehouse USING (warehouse_key)",
    ),
}


VIEWS = [script.removeprefix("gold/").removesuffix(".sql") for script in ORDER if script.startswith("gold/")]


THRESHOLDS = {"*": 5}


class Mornings(Warehouse):
    """A warehouse that is loaded day by day, and keeps its input for the oracle."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.loads: list[Load] = []
        self.thresholds: dict[str, int] = dict(THRESHOLDS)
        self.plans: dict[str, tuple[int | None, int | None]] = {}
        self.defined = False

    def begin_anew(self) -> None:
        """Delete all rows; keep tables and views."""
        tables = [
            table
            for (table,) in self.sql(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('bronze', 'silver')"
            )
        ]
        self.sql(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
        self.loads, self.thresholds, self.plans = [], dict(THRESHOLDS), {}

    def morning(self, day: date, products: Sequence[Mapping], rows: Sequence[Mapping] = ()) -> None:
        """Load this date."""
        self.put(products, rows)
        self.sql(f"SET elt.run_date = '{day}'")
        self.run([script for script in ORDER if script.startswith("silver/")])
        if not self.defined:
            self.run([script for script in ORDER if script.startswith("gold/")])
            self.defined = True
        self.loads.append(Load(day, products, rows, dict(self.thresholds)))

    def set_threshold(self, kind: str, threshold: int) -> None:
        """Edit a threshold, as an analyst does."""
        self.sql(
            f"INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold) VALUES ('{kind}', {threshold})"
            " ON CONFLICT (product_type) DO UPDATE SET low_stock_threshold = excluded.low_stock_threshold"
        )
        self.thresholds[kind] = threshold

    def set_plan(self, kind: str, lead_time: int | None, cover: int | None) -> None:
        """Edit lead time and cover days, as an analyst does, if the type has a row."""
        values = [str(days) if days is not None else "NULL" for days in (lead_time, cover)]
        if self.sql(
            f"UPDATE silver.stock_thresholds SET lead_time_days = {values[0]}, cover_days = {values[1]}"
            f" WHERE product_type = '{kind}' RETURNING 1"
        ):
            self.plans[kind] = (lead_time, cover)

    def rows(self, view: str) -> Counter:
        """Every cell of a view, without surrogate keys."""
        columns = ", ".join(
            name
            for (name,) in self.sql(
                f"SELECT attname FROM pg_attribute WHERE attrelid = 'gold.{view}'::regclass"
                " AND attname NOT IN ('product_key', 'warehouse_key') ORDER BY attnum"
            )
        )
        return Counter(
            self.sql(SHOWN.get(view, "SELECT {columns} FROM gold.{view}").format(columns=columns, view=view))
        )

    def assert_answers_are_right(self) -> None:
        expected = Answers(self.loads, self.thresholds, self.plans)
        for view in VIEWS:
            found, wanted = self.rows(view), getattr(expected, view)()
            assert found == wanted, f"gold.{view}: too many {found - wanted}, too few {wanted - found}"

    def assert_checks_pass(self, but: Sequence[str] = ()) -> None:
        for check in CHECKS:
            if check not in (*but, *WARNINGS):
                assert self.broken(check) == [], check

    def keys(self) -> dict[tuple, int]:
        """The surrogate key of each product version and warehouse."""
        return {
            tuple(place): key
            for *place, key in self.sql(
                "SELECT 'product', product_sku, valid_from::text, product_key FROM gold.dim_product"
                " UNION ALL SELECT 'warehouse', warehouse_id, '', warehouse_key FROM gold.dim_warehouse"
            )
        }
