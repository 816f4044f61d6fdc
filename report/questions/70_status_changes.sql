-- Which products changed their status?
-- The newest first.
SELECT date_key, product_sku, product_name, status_left, status_entered
FROM gold.status_changes
ORDER BY date_key DESC, product_sku ASC;
