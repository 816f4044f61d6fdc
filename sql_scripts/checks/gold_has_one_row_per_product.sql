-- Claim: gold.product_status_summary has each product of silver.products exactly once.
-- What to do: a join in gold/product_status_summary.sql loses or doubles rows; look at its last changes.

SELECT
    'not exactly one row in gold' AS message,
    product_sku,
    count(gold_sku) AS rows_in_gold,
    count(silver_sku) AS rows_in_silver
FROM (
    SELECT product_sku, product_sku AS gold_sku, NULL AS silver_sku FROM gold.product_status_summary
    UNION ALL
    SELECT product_sku, NULL, product_sku FROM silver.products
) AS both_layers
GROUP BY product_sku
HAVING count(gold_sku) <> 1 OR count(silver_sku) <> 1;
