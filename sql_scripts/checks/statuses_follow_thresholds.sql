-- Claim: stock_status says what total_stock and silver.stock_thresholds say.
-- What to do: compare the CASE in gold/product_status_summary.sql with the thresholds; the row '*' holds for every
-- product type that has none of its own.

SELECT
    'stock_status does not follow total_stock' AS message,
    product_sku,
    total_stock,
    thresholds.low_stock_threshold,
    stock_status
FROM gold.product_status_summary
CROSS JOIN LATERAL (
    SELECT low_stock_threshold
    FROM silver.stock_thresholds
    WHERE stock_thresholds.product_type IN (product_status_summary.product_type, '*')
    ORDER BY stock_thresholds.product_type = '*'
    LIMIT 1
) AS thresholds
WHERE (stock_status = 'Out of Stock') <> (total_stock <= 0)
    OR (stock_status = 'Low Stock') <> (total_stock > 0 AND total_stock <= thresholds.low_stock_threshold)
    OR (stock_status = 'In Stock') <> (total_stock > 0 AND total_stock > thresholds.low_stock_threshold);
