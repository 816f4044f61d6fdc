-- Claim: the pieces and warehouses in gold.product_status_summary add up to those in silver.stock_levels.
-- What to do: a join in gold/product_status_summary.sql loses or doubles rows; look at its last changes.

WITH

gold_totals AS (
    SELECT
        sum(total_stock) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(quarantined_quantity) AS quarantined_quantity,
        sum(quantity_unavailable) AS quantity_unavailable,
        sum(warehouse_count) AS stock_rows
    FROM gold.product_status_summary
),

silver_totals AS (
    SELECT
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(quarantined_quantity) AS quarantined_quantity,
        sum(quantity_unavailable) AS quantity_unavailable,
        count(*) AS stock_rows
    FROM silver.stock_levels
)

SELECT 'gold and silver differ' AS message, totals.*
FROM gold_totals
CROSS JOIN silver_totals
CROSS JOIN LATERAL (
    VALUES
        ('quantity_available', gold_totals.quantity_available, silver_totals.quantity_available),
        ('quantity_on_hand', gold_totals.quantity_on_hand, silver_totals.quantity_on_hand),
        ('quarantined_quantity', gold_totals.quarantined_quantity, silver_totals.quarantined_quantity),
        ('quantity_unavailable', gold_totals.quantity_unavailable, silver_totals.quantity_unavailable),
        ('stock_rows', gold_totals.stock_rows, silver_totals.stock_rows)
) AS totals (what, gold, silver)
WHERE coalesce(gold, 0) <> coalesce(silver, 0);
