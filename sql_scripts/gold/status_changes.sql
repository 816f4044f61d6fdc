-- gold.status_changes: which products entered or left Low Stock or Out of Stock, and when?
-- Reads silver.product_stock_history, silver.product_history.

CREATE OR REPLACE VIEW gold.status_changes AS
WITH

ranges AS (
    SELECT
        product_sku,
        valid_from,
        total_stock,
        stock_status,
        lag(stock_status) OVER (PARTITION BY product_sku ORDER BY valid_from) AS status_before
    FROM silver.product_stock_history
)

SELECT
    ranges.valid_from AS date_key,
    ranges.product_sku,
    names.product_name,
    ranges.status_before AS status_left,
    ranges.stock_status AS status_entered,
    ranges.total_stock
FROM ranges
LEFT JOIN silver.product_history AS names
    ON names.product_sku = ranges.product_sku
    AND ranges.valid_from >= names.valid_from
    AND ranges.valid_from < names.valid_to
WHERE ranges.status_before <> ranges.stock_status;

COMMENT ON VIEW gold.status_changes IS
    'One row per product and day on which its status differs from that of the last day before on which it was loaded.';
COMMENT ON COLUMN gold.status_changes.date_key IS 'Day, as in gold.dim_date.';
COMMENT ON COLUMN gold.status_changes.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.status_changes.product_name IS 'Name on that day, without line breaks. NULL: Keboola had none.';
COMMENT ON COLUMN gold.status_changes.status_left IS 'Status before: Out of Stock, Low Stock or In Stock.';
COMMENT ON COLUMN gold.status_changes.status_entered IS
    'Status from that day on, by the thresholds at the time of its load.';
COMMENT ON COLUMN gold.status_changes.total_stock IS 'Pieces that could be sold on that day, in all warehouses.';
