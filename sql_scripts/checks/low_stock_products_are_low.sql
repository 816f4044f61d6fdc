-- Claim: gold.low_stock_products has exactly the active products that gold.product_status_summary calls Low Stock or
-- Out of Stock, with the same status.
-- What to do: the two views read the thresholds differently; look at what changed in them.

SELECT
    'the two views differ' AS message,
    coalesce(summary.product_sku, low_stock_products.product_sku) AS product_sku,
    summary.stock_status AS status_in_summary,
    low_stock_products.stock_status AS status_in_low_stock
FROM (
    SELECT product_sku, stock_status
    FROM gold.product_status_summary
    WHERE product_status = 'Active' AND stock_status <> 'In Stock'
) AS summary
FULL JOIN gold.low_stock_products ON low_stock_products.product_sku = summary.product_sku
WHERE summary.stock_status IS DISTINCT FROM low_stock_products.stock_status;
