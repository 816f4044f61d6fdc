-- silver.product_stock: one row per product, with its stock summed over all warehouses.
-- Reads silver.products, silver.stock_levels.  The sums are kept, because several gold views need them.

CREATE TABLE IF NOT EXISTS silver.product_stock (
    product_sku          text    PRIMARY KEY,
    total_stock          numeric NOT NULL,
    quantity_on_hand     numeric NOT NULL,
    quarantined_quantity numeric NOT NULL,
    quantity_unavailable numeric NOT NULL,
    warehouse_count      bigint  NOT NULL
);

COMMENT ON TABLE silver.product_stock IS
    'One row per product of silver.products: its stock in all warehouses. Products without stock rows have 0.';
COMMENT ON COLUMN silver.product_stock.product_sku IS 'SKU, as in silver.products.';
COMMENT ON COLUMN silver.product_stock.total_stock IS
    'Pieces that can be sold: quantity_available summed over all warehouses.';
COMMENT ON COLUMN silver.product_stock.quantity_on_hand IS
    'Pieces on the shelf; in no warehouse more than quantity_available there.';
COMMENT ON COLUMN silver.product_stock.quarantined_quantity IS 'Pieces held back for inspection, in all warehouses.';
COMMENT ON COLUMN silver.product_stock.quantity_unavailable IS 'Pieces that cannot be sold, in all warehouses.';
COMMENT ON COLUMN silver.product_stock.warehouse_count IS
    'Warehouses with a stock row of the product, the unknown warehouse included.';

DROP TABLE IF EXISTS pg_temp.product_stock_now;
CREATE TEMP TABLE product_stock_now AS
WITH

stock AS (
    SELECT
        product_sku,
        sum(quantity_available) AS total_stock,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(quarantined_quantity) AS quarantined_quantity,
        sum(quantity_unavailable) AS quantity_unavailable,
        count(*) AS warehouse_count
    FROM silver.stock_levels
    GROUP BY product_sku
)

SELECT
    products.product_sku,
    coalesce(stock.total_stock, 0) AS total_stock,
    coalesce(stock.quantity_on_hand, 0) AS quantity_on_hand,
    coalesce(stock.quarantined_quantity, 0) AS quarantined_quantity,
    coalesce(stock.quantity_unavailable, 0) AS quantity_unavailable,
    coalesce(stock.warehouse_count, 0) AS warehouse_count
FROM silver.products
LEFT JOIN stock ON stock.product_sku = products.product_sku;

SELECT * FROM elt.publish_rows('silver.product_stock', 'product_stock_now');
