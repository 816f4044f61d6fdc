-- gold.slow_movers: what lies in stock and does not go?
-- Reads gold.stock_forecast, silver.products, silver.product_stock, silver.product_stock_history, silver.loaded_days.
-- The days are those of gold.stock_forecast: a product that was not there on all of them may be new, and is not listed.

CREATE OR REPLACE VIEW gold.slow_movers AS
WITH

slow AS (
    SELECT product_sku, product_name, product_type, product_status, total_stock
    FROM gold.stock_forecast
    WHERE total_stock > 0 AND total_decrease = 0
),

-- Each keeps its columns from here on: PostgreSQL expects far fewer of them than there can be,
-- and would join them badly.
steps AS (
    SELECT
        slow.*,
        stock.valid_from,
        stock.total_stock < lag(stock.total_stock) OVER (PARTITION BY slow.product_sku ORDER BY stock.valid_from)
            AS is_decrease
    FROM slow
    INNER JOIN silver.loaded_days AS today ON today.is_current
    INNER JOIN silver.product_stock_history AS stock
        ON stock.product_sku = slow.product_sku
        AND stock.valid_from <= today.day
),

decreases AS (
    SELECT
        product_sku,
        product_name,
        product_type,
        product_status,
        total_stock,
        max(valid_from) FILTER (WHERE is_decrease) AS last_decrease
    FROM steps
    GROUP BY product_sku, product_name, product_type, product_status, total_stock
)

SELECT
    decreases.product_sku,
    decreases.product_name,
    decreases.product_type,
    decreases.product_status,
    decreases.total_stock,
    stock.quantity_on_hand,
    round(products.length_cm * products.width_cm * products.height_cm * greatest(stock.quantity_on_hand, 0), 3)
        AS space_taken_cm3,
    decreases.last_decrease
FROM decreases
INNER JOIN silver.products ON products.product_sku = decreases.product_sku
INNER JOIN silver.product_stock AS stock ON stock.product_sku = decreases.product_sku;

COMMENT ON VIEW gold.slow_movers IS
    'One row per product with stock whose total stock did not go down on any of the last 28 loaded days. Empty before there are as many.';
COMMENT ON COLUMN gold.slow_movers.product_sku IS 'Stock keeping unit.';
COMMENT ON COLUMN gold.slow_movers.product_name IS 'Name of the product.';
COMMENT ON COLUMN gold.slow_movers.product_type IS 'Kind of product.';
COMMENT ON COLUMN gold.slow_movers.product_status IS 'Active or Inactive.';
COMMENT ON COLUMN gold.slow_movers.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.slow_movers.quantity_on_hand IS 'Pieces on the shelf, in no warehouse more than are available there.';
COMMENT ON COLUMN gold.slow_movers.space_taken_cm3 IS
    'Cubic centimetres that the pieces on the shelf take: those of quantity_on_hand; quarantined and unavailable pieces are not counted. NULL where the volume is unknown.';
COMMENT ON COLUMN gold.slow_movers.last_decrease IS
    'The last day on which its total stock was below that of the day loaded before; NULL: on none since the first day of the history.';
