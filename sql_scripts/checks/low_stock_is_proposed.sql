-- Claim: the products that gold.reorder_proposals proposes as below their threshold are those of
-- gold.low_stock_products.  Each order brings its product at least to the threshold, and no order_by is in the past.
-- What to do: the two views read the thresholds differently; look at their last changes.

SELECT
    'low stock and proposals differ' AS message,
    coalesce(low_stock_products.product_sku, proposals.product_sku) AS product_sku,
    low_stock_products.stock_status,
    proposals.reason,
    proposals.reorder_quantity,
    proposals.order_by
FROM gold.low_stock_products
FULL JOIN gold.reorder_proposals AS proposals ON proposals.product_sku = low_stock_products.product_sku
WHERE (low_stock_products.product_sku IS NOT NULL) <> coalesce(proposals.reason LIKE 'below its threshold%', false)
    OR proposals.total_stock + proposals.reorder_quantity < proposals.low_stock_threshold
    OR proposals.order_by < (SELECT day FROM silver.loaded_days WHERE is_current);
