"""Ways to break the claim of each check: rows of one load, rows of several loads, and wrong views."""

from __future__ import annotations

BREAK_A_DAY = {
    "checks/every_product_link_has_stock.sql": (
        "DELETE FROM bronze.products_inventory_locations WHERE json_parentid = 'link-c'",
        "run both",
    ),
    "checks/every_stock_row_has_a_product.sql": ("DELETE FROM silver.products WHERE product_sku = 'C1'", "C1"),
    "checks/bronze_less_issues_equals_silver.sql": (
        "DELETE FROM silver.stock_levels WHERE warehouse_id = '102'",
        "rows of products_inventory_locations",
    ),
    "checks/gold_has_one_row_per_product.sql": (
        "CREATE OR REPLACE VIEW gold.product_status_summary AS SELECT s.* FROM (SELECT product_sku, product_name,"
        " product_type, 'Active' AS product_status, 0::numeric AS total_stock, 0::numeric AS quantity_on_hand,"
        " 0::numeric AS quarantined_quantity, 0::numeric AS quantity_unavailable, 0::bigint AS warehouse_count,"
        " 'Out of Stock' AS stock_status, 0::numeric AS volume_cm3, 0::numeric AS space_taken_cm3"
        " FROM silver.products) AS s, (VALUES (1), (2)) AS twice",
        "A1",
    ),
    "checks/gold_totals_equal_silver_totals.sql": (
        "INSERT INTO silver.stock_levels VALUES ('Z9', '101', NULL, NULL, 1, 0, 0, 0, 0, 1)",
        "quantity_available",
    ),
}


#: for checks of several loads: what breaks the claim, and what the result must name
BREAK_MORE_DAYS = {
    "checks/dimensions_have_one_row_per_key.sql": (
        "CREATE OR REPLACE VIEW gold.dim_warehouse AS SELECT warehouse_key, warehouse_id, warehouse_name,"
        " warehouse_identifier, is_loaded FROM silver.warehouses, (VALUES (1), (2)) AS twice",
        "dim_warehouse",
    ),
    "checks/facts_join_their_dimensions.sql": (
        "DELETE FROM silver.warehouses WHERE warehouse_id = 'unknown'; UPDATE silver.warehouses SET warehouse_id = 'x'",
        "quantity_available",
    ),
    "checks/history_is_todays_stock.sql": (
        "UPDATE silver.stock_levels SET quantity_available = 9",
        "quantity_available",
    ),
    "checks/daily_facts_add_up.sql": (
        "DELETE FROM silver.stock_history WHERE valid_to < 'infinity'",
        "rows of stock_history",
    ),
    "checks/history_has_no_gap_or_overlap.sql": (
        "UPDATE silver.product_history SET valid_to = '2026-01-06' WHERE product_sku = 'A1';"
        " INSERT INTO silver.product_history (product_sku, valid_from, valid_to, is_active, has_dimensions)"
        " VALUES ('A1', '2026-01-05'::date - 1, '2026-01-07', true, true)",
        "overlap",
    ),
    "checks/warehouse_totals_equal_silver.sql": ("UPDATE silver.warehouses SET is_loaded = false", "stock_rows"),
    "checks/low_stock_is_proposed.sql": ("DELETE FROM silver.product_stock_history WHERE product_sku = 'B2'", "B2"),
    "checks/quarantined_stock_equals_silver.sql": (
        "INSERT INTO silver.loaded_days SELECT day - 9, true, 0, 0, 0 FROM silver.loaded_days WHERE is_current",
        "gold and silver differ",
    ),
    "checks/load_status_is_one_row.sql": (
        "CREATE OR REPLACE VIEW gold.load_status AS SELECT DATE '2026-01-07' AS date_key, now() AS published_at,"
        " now() AS sources_imported_at, 'done' AS last_run_status, now() AS last_run_ended_at, '' AS last_run_error,"
        " '' AS sentence FROM (VALUES (1), (2)) AS twice",
        "not one row",
    ),
    "checks/quality_counts_equal_issues.sql": ("DELETE FROM silver.data_quality_issues", "product_without_stock"),
    "checks/no_day_is_missing.sql": ("DELETE FROM silver.loaded_days WHERE day = '2026-01-06'", "2026, 1, 6"),
    "checks/issues_have_not_doubled.sql": (
        "UPDATE silver.data_quality_counts SET issue_count = 2 * issue_count + 1 WHERE day = '2026-01-07'",
        "product_without_stock",
    ),
}


#: more ways: a text of a view's script and its replacement, or a statement
BREAK_OTHERWISE = [
    (
        "checks/facts_join_their_dimensions.sql",
        ("gold/fact_inventory.sql", "coalesce(products.product_key, 0)", "0::bigint"),
        "sum of product keys",
    ),
    (
        "checks/history_is_todays_stock.sql",
        ("gold/fact_inventory_daily.sql", "coalesce(products.product_key, 0)", "0::bigint"),
        "sum of product keys",
    ),
    (
        "checks/low_stock_is_proposed.sql",
        ("gold/reorder_proposals.sql", "- total_stock\n    ) AS", "- total_stock - 1\n    ) AS"),
        "below its threshold",
    ),
    (
        "checks/low_stock_is_proposed.sql",
        ("gold/reorder_proposals.sql", "total_decrease IS NULL THEN today", "total_decrease IS NULL THEN today - 1"),
        "below its threshold",
    ),
    (
        "checks/quarantined_stock_equals_silver.sql",
        ("gold/quarantined_stock.sql", "LEFT JOIN since", "INNER JOIN since AS without ON false INNER JOIN since"),
        "gold and silver differ",
    ),
    (
        "checks/load_status_is_one_row.sql",
        ("gold/load_status.sql", "SELECT max(day) AS day", "SELECT max(day) - 1 AS day"),
        "not one row of the current day",
    ),
    (
        "checks/daily_facts_add_up.sql",
        "DELETE FROM silver.loaded_days WHERE day = '2026-01-06'",
        "begins or ends on a day that was not loaded",
    ),
    (
        "checks/history_has_no_gap_or_overlap.sql",
        "UPDATE silver.stock_history SET valid_to = '2026-01-07' WHERE valid_from = '2026-01-05';"
        " UPDATE silver.stock_history SET valid_from = '2026-01-07' WHERE valid_from = '2026-01-06';"
        " UPDATE silver.stock_history SET (quantity_available, quantity_on_hand, quarantined_quantity,"
        " quantity_unavailable) = (1, 1, 1, 1)",
        "two ranges that meet are equal",
    ),
]
