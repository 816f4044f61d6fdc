-- silver.product_stock_history: one row per product and range of days on which its total stock and status
-- stayed the same.
-- Reads silver.products, silver.product_stock, silver.stock_thresholds, silver.loaded_days.
-- The status comes from the thresholds at the time of the load.  Editing a threshold later changes no past day.

CREATE TABLE IF NOT EXISTS silver.product_stock_history (
    product_sku  text    NOT NULL,
    valid_from   date    NOT NULL,
    valid_to     date    NOT NULL CHECK (valid_from < valid_to),
    total_stock  numeric NOT NULL,
    stock_status text    NOT NULL,
    PRIMARY KEY (product_sku, valid_from)
);

COMMENT ON TABLE silver.product_stock_history IS
    'One row per product and range of days on which its total stock and its status stayed the same.';
COMMENT ON COLUMN silver.product_stock_history.product_sku IS 'SKU, as in silver.products.';
COMMENT ON COLUMN silver.product_stock_history.valid_from IS 'First day of the range.';
COMMENT ON COLUMN silver.product_stock_history.valid_to IS
    'First day after the range; infinity: the range has not ended.';
COMMENT ON COLUMN silver.product_stock_history.total_stock IS
    'Pieces that could be sold on these days, in all warehouses.';
COMMENT ON COLUMN silver.product_stock_history.stock_status IS
    'Out of Stock, Low Stock or In Stock, by the thresholds at the time of the load.';

DROP TABLE IF EXISTS pg_temp.product_stock_today;
CREATE TEMP TABLE product_stock_today AS
WITH

products AS (
    SELECT
        products.product_sku,
        stock.total_stock,
        coalesce(of_type.low_stock_threshold, of_all.low_stock_threshold) AS low_stock_threshold
    FROM silver.products
    INNER JOIN silver.product_stock AS stock ON stock.product_sku = products.product_sku
    LEFT JOIN silver.stock_thresholds AS of_type ON of_type.product_type = products.product_type
    LEFT JOIN silver.stock_thresholds AS of_all ON of_all.product_type = '*'
)

SELECT
    product_sku,
    total_stock,
    silver.stock_status(total_stock, low_stock_threshold) AS stock_status
FROM products;

SELECT *
FROM elt.publish_history(
    'silver.product_stock_history',
    'product_stock_today',
    elt.run_date(),
    (SELECT min(day) FROM silver.loaded_days WHERE day > elt.run_date())
);
