-- Claim: gold.warehouse_stock_summary adds up to silver.stock_levels and silver.stock_without_product.
-- What to do: a join in gold/warehouse_stock_summary.sql loses or doubles rows; look at its last changes.

WITH

gold_totals AS (
    SELECT
        sum(product_count) AS stock_rows,
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(quantity_without_product) AS quantity_without_product
    FROM gold.warehouse_stock_summary
),

silver_totals AS (
    SELECT
        count(*) AS stock_rows,
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        (SELECT sum(quantity_available) FROM silver.stock_without_product) AS quantity_without_product
    FROM silver.stock_levels
)

SELECT 'gold and silver differ' AS message, totals.*
FROM gold_totals
CROSS JOIN silver_totals
CROSS JOIN LATERAL (
    VALUES
        ('stock_rows', gold_totals.stock_rows, silver_totals.stock_rows),
        ('quantity_available', gold_totals.quantity_available, silver_totals.quantity_available),
        ('quantity_on_hand', gold_totals.quantity_on_hand, silver_totals.quantity_on_hand),
        (
            'quantity_without_product',
            gold_totals.quantity_without_product,
            silver_totals.quantity_without_product
        )
) AS totals (what, gold, silver)
WHERE coalesce(gold, 0) <> coalesce(silver, 0);
