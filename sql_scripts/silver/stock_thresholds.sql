-- silver.stock_thresholds: one row per product type with its own threshold; '*' is the default for all other types.
-- Analysts edit it.  No load overwrites their edits, so a change of the values at the end of this script has no effect
-- once the row is there.
--
--     INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold, lead_time_days) VALUES ('cable', 20, 30);

CREATE TABLE IF NOT EXISTS silver.stock_thresholds (
    product_type        text    PRIMARY KEY,
    low_stock_threshold numeric NOT NULL CHECK (low_stock_threshold >= 0)
);

SELECT elt.add_column('silver.stock_thresholds', 'lead_time_days', 'integer');
SELECT elt.add_column('silver.stock_thresholds', 'cover_days', 'integer');

COMMENT ON TABLE silver.stock_thresholds IS
    'One row per product type with its own threshold. Edit it in psql: no load overwrites it, and gold views use the new values at once.';
COMMENT ON COLUMN silver.stock_thresholds.product_type IS
    'Type as in silver.products; * is the default for types without a row.';
COMMENT ON COLUMN silver.stock_thresholds.low_stock_threshold IS
    'A total stock above 0 and up to this number is Low Stock.';
COMMENT ON COLUMN silver.stock_thresholds.lead_time_days IS
    'Days from an order to its delivery. NULL: the value of row *, or 14 if that is NULL too.';
COMMENT ON COLUMN silver.stock_thresholds.cover_days IS
    'Days that the stock should last after a delivery. NULL: the value of row *, or 28 if that is NULL too.';

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
    'Stock status of a product: Out of Stock at 0 or less, Low Stock up to the threshold, In Stock above it.';

-- Not ON CONFLICT: it would wait for an analyst who has not committed an edit yet.  NOT EXISTS waits for nobody.
INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold, lead_time_days, cover_days)
SELECT '*', 5, 14, 28
WHERE NOT EXISTS (SELECT FROM silver.stock_thresholds WHERE product_type = '*');
