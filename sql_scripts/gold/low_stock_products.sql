-- gold.low_stock_products: which active products must be bought again, how many pieces are missing, and since when?
-- Reads silver.products, silver.product_stock, silver.product_stock_history, silver.stock_thresholds,
-- silver.loaded_days.

CREATE OR REPLACE VIEW gold.low_stock_products AS
WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

active AS (
    SELECT
        products.product_sku,
        products.product_name,
        products.product_type,
        stock.total_stock,
        coalesce(of_type.low_stock_threshold, of_all.low_stock_threshold) AS low_stock_threshold
    FROM silver.products
    INNER JOIN silver.product_stock AS stock ON stock.product_sku = products.product_sku
    LEFT JOIN silver.stock_thresholds AS of_type ON of_type.product_type = products.product_type
    LEFT JOIN silver.stock_thresholds AS of_all ON of_all.product_type = '*'
    WHERE products.is_active
),

low AS (
    SELECT *, silver.stock_status(total_stock, low_stock_threshold) AS stock_status
    FROM active
    WHERE silver.stock_status(total_stock, low_stock_threshold) <> 'In Stock'
),

-- A day without the product does not end a period of low stock, because its stock on that day is unknown.
ranges AS (
    SELECT
        low.product_sku,
        stock.valid_from,
        max(stock.valid_from) FILTER (
            WHERE silver.stock_status(stock.total_stock, low.low_stock_threshold) = 'In Stock'
        ) OVER (PARTITION BY low.product_sku) AS last_above
    FROM low
    CROSS JOIN today
    INNER JOIN silver.product_stock_history AS stock
        ON stock.product_sku = low.product_sku
        AND stock.valid_from <= today.day
),

since AS (
    SELECT product_sku, min(valid_from) AS low_since
    FROM ranges
    WHERE valid_from > coalesce(last_above, '-infinity')
    GROUP BY product_sku
)

SELECT
    low.product_sku,
    low.product_name,
    low.product_type,
    low.stock_status,
    low.total_stock,
    low.low_stock_threshold,
    low.low_stock_threshold - low.total_stock AS quantity_missing,
    since.low_since
FROM low
INNER JOIN since ON since.product_sku = low.product_sku;

COMMENT ON VIEW gold.low_stock_products IS
    'One row per active product whose total stock is at or below its threshold, or out.';
COMMENT ON COLUMN gold.low_stock_products.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.low_stock_products.product_name IS
    'Name in the current load, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.low_stock_products.product_type IS
    'Type in the current load, such as cable. NULL: Keboola has none.';
COMMENT ON COLUMN gold.low_stock_products.stock_status IS 'Low Stock or Out of Stock.';
COMMENT ON COLUMN gold.low_stock_products.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.low_stock_products.low_stock_threshold IS
    'Threshold of its type in silver.stock_thresholds, or of row * if the type has none.';
COMMENT ON COLUMN gold.low_stock_products.quantity_missing IS
    'Pieces missing to the threshold: low_stock_threshold - total_stock. One piece more makes it In Stock.';
COMMENT ON COLUMN gold.low_stock_products.low_since IS
    'First loaded day of the current period at or below the threshold. Past days are compared with today''s threshold, too.';
