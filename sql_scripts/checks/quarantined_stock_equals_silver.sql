-- Claim: gold.quarantined_stock has each quarantined piece of silver.stock_levels
-- and silver.stock_without_product exactly once.
-- What to do: a join in gold/quarantined_stock.sql loses or doubles rows; look at its last changes.

WITH

gold_totals AS (
    SELECT count(*) AS stock_rows, coalesce(sum(quarantined_quantity), 0) AS pieces FROM gold.quarantined_stock
),

silver_totals AS (
    SELECT count(*) AS stock_rows, coalesce(sum(quarantined_quantity), 0) AS pieces
    FROM (
        SELECT quarantined_quantity FROM silver.stock_levels
        UNION ALL
        SELECT quarantined_quantity FROM silver.stock_without_product
    ) AS stock
    WHERE quarantined_quantity > 0
)

SELECT
    'gold and silver differ' AS message,
    gold_totals.stock_rows AS rows_in_gold,
    silver_totals.stock_rows AS rows_in_silver,
    gold_totals.pieces AS pieces_in_gold,
    silver_totals.pieces AS pieces_in_silver
FROM gold_totals
CROSS JOIN silver_totals
WHERE (gold_totals.stock_rows, gold_totals.pieces) <> (silver_totals.stock_rows, silver_totals.pieces);
