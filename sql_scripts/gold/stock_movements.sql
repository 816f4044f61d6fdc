-- gold.stock_movements: how did the stock of each product change from day to day?
-- Reads silver.product_stock_history, silver.product_history, silver.loaded_days.

CREATE OR REPLACE VIEW gold.stock_movements AS
WITH

ranges AS (
    SELECT
        product_sku,
        valid_from,
        valid_to,
        total_stock,
        lag(valid_to) OVER earlier AS before_until,
        lag(total_stock) OVER earlier AS before_stock,
        lead(valid_from) OVER earlier AS next_from
    FROM silver.product_stock_history
    WINDOW earlier AS (PARTITION BY product_sku ORDER BY valid_from)
),

-- A product that is new on a day opens with 0.  On the first loaded day the opening stock is unknown: NULL.
movements AS (
    SELECT
        product_sku,
        valid_from AS date_key,
        valid_from AS known_on,
        CASE
            WHEN before_until = valid_from THEN before_stock
            WHEN valid_from > (SELECT min(day) FROM silver.loaded_days) THEN 0
        END AS opening_stock,
        total_stock AS closing_stock
    FROM ranges

    UNION ALL
    SELECT product_sku, valid_to, valid_to - 1, total_stock, 0
    FROM ranges
    WHERE valid_to < 'infinity' AND valid_to IS DISTINCT FROM next_from
)

SELECT
    movements.date_key,
    movements.product_sku,
    names.product_name,
    movements.opening_stock,
    movements.closing_stock - movements.opening_stock AS stock_change,
    movements.closing_stock
FROM movements
LEFT JOIN silver.product_history AS names
    ON names.product_sku = movements.product_sku
    AND movements.known_on >= names.valid_from
    AND movements.known_on < names.valid_to
WHERE movements.closing_stock IS DISTINCT FROM movements.opening_stock;

COMMENT ON VIEW gold.stock_movements IS
    'One row per product and day on which its total stock differs from the loaded day before, and one for the first loaded day.';
COMMENT ON COLUMN gold.stock_movements.date_key IS 'Day, as in gold.dim_date.';
COMMENT ON COLUMN gold.stock_movements.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.stock_movements.product_name IS
    'Name on that day; for a product that is gone, its last name. NULL: Keboola had none.';
COMMENT ON COLUMN gold.stock_movements.opening_stock IS
    'Pieces on the loaded day before; 0 if the product was not there. NULL: first loaded day.';
COMMENT ON COLUMN gold.stock_movements.stock_change IS 'closing_stock - opening_stock. NULL: first loaded day.';
COMMENT ON COLUMN gold.stock_movements.closing_stock IS 'Pieces on that day; 0 if the product is no longer there.';
