-- Claim: gold.reorder_proposals proposes every product of gold.low_stock_products because it is below its threshold,
-- and no other for that reason; an order brings a product to its threshold at least, and no day to order is past.
-- What to do: the two views read the thresholds differently; look at what changed in them.

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
