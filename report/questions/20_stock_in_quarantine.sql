-- Where is stock stuck in quarantine, and since when?
-- Pieces that were held back for inspection and cannot be sold.
SELECT product_sku, product_name, warehouse_name, quarantined_quantity, quarantined_since, days_in_quarantine
FROM gold.quarantined_stock
ORDER BY quarantined_since, product_sku, warehouse_name;
