-- silver.stock_thresholds: one row per product type, and '*' for every other type.
-- Analysts edit it; no load overwrites it.
--
--     INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold, lead_time_days) VALUES ('cable', 20, 30);

CREATE TABLE IF NOT EXISTS silver.stock_thresholds (
    product_type        text    PRIMARY KEY,
    low_stock_threshold numeric NOT NULL CHECK (low_stock_threshold >= 0)
);

SELECT elt.add_column('silver.stock_thresholds', 'lead_time_days', 'integer');
SELECT elt.add_column('silver.stock_thresholds', 'cover_days', 'integer');

COMMENT ON TABLE silver.stock_thresholds IS
    'One row per product type that has a threshold of its own. Edit it in psql: no load overwrites it, and gold follows at once.';
COMMENT ON COLUMN silver.stock_thresholds.product_type IS 'As in silver.products; ''*'' holds for every type without a row.';
COMMENT ON COLUMN silver.stock_thresholds.low_stock_threshold IS
    'A total stock above 0 and up to this number is ''Low Stock''.';
COMMENT ON COLUMN silver.stock_thresholds.lead_time_days IS
    'Days from an order to its delivery. NULL: as in the row ''*''; where that is NULL too, 14.';
COMMENT ON COLUMN silver.stock_thresholds.cover_days IS
    'Days that the stock should last after a delivery. NULL: as in the row ''*''; where that is NULL too, 28.';

CREATE OR REPLACE FUNCTION silver.stock_status(total_stock numeric, low_stock_threshold numeric)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN total_stock <= 0 THEN 'Out of Stock'
    WHEN total_stock <= low_stock_threshold THEN 'Low Stock'
    ELSE 'In Stock'
END;

COMMENT ON FUNCTION silver.stock_status(numeric, numeric) IS
    'Whether there is enough of a product: Out of Stock at 0 or less, Low Stock up to the threshold, In Stock above.';

-- ON CONFLICT would wait for an analyst whose edit is not committed yet; looking first waits for nobody.
INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold, lead_time_days, cover_days)
SELECT '*', 5, 14, 28
WHERE NOT EXISTS (SELECT FROM silver.stock_thresholds WHERE product_type = '*');
