-- What do we order, how much, and until when?
-- Only active products. A quantity covers the lead time and 28 days of sales; silver.stock_thresholds sets both.
SELECT product_sku, product_name, reorder_quantity, order_by, reason
FROM gold.reorder_proposals
ORDER BY order_by, product_sku;
