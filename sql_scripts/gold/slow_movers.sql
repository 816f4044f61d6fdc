-- gold.slow_movers: which products lie in stock and do not move?
-- Reads gold.stock_forecast, silver.products, silver.product_stock, silver.product_stock_history, silver.loaded_days.
-- It looks at the days of gold.stock_forecast.  A product that lacks some of them may be new, so it is not listed.

CREATE OR REPLACE VIEW gold.slow_movers AS
WITH

slow AS (
    SELECT product_sku, product_name, product_type, product_status, total_stock
    FROM gold.stock_forecast
    WHERE total_stock > 0 AND total_decrease = 0
),

-- The columns of slow are carried along instead of joined later: the planner expects far fewer rows than there can
-- be, and would choose a slow join.
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
    'One row per product with stock whose total stock did not go down on any of the last 28 loaded days. Empty until 29 days are loaded.';
COMMENT ON COLUMN gold.slow_movers.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.slow_movers.product_name IS
    'Name in the current load, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.slow_movers.product_type IS 'Type in the current load, such as cable. NULL: Keboola has none.';
COMMENT ON COLUMN gold.slow_movers.product_status IS 'Active or Inactive, by is_active in Keboola.';
COMMENT ON COLUMN gold.slow_movers.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.slow_movers.quantity_on_hand IS
    'Pieces on the shelf; in no warehouse more than can be sold there.';
COMMENT ON COLUMN gold.slow_movers.space_taken_cm3 IS
    'Cubic centimetres that the pieces on the shelf take, those of quantity_on_hand. Quarantined and unavailable pieces are not counted. NULL: the volume is unknown.';
COMMENT ON COLUMN gold.slow_movers.last_decrease IS
    'Last day on which total_stock was lower than on the loaded day before. NULL: never since the first loaded day.';
