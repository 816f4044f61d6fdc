-- silver.products: one row per SKU.  Reads silver.product_rows.
-- Rows that it leaves out (no SKU, or a duplicate of a SKU) are listed in silver.data_quality_issues.

CREATE TABLE IF NOT EXISTS silver.products (
    product_sku    text    PRIMARY KEY,
    product_name   text,
    product_type   text,
    weight_g       numeric CHECK (weight_g > 0),
    length_cm      numeric CHECK (length_cm > 0),
    width_cm       numeric CHECK (width_cm > 0),
    height_cm      numeric CHECK (height_cm > 0),
    is_active      boolean NOT NULL,
    has_dimensions boolean NOT NULL
);

COMMENT ON TABLE silver.products IS
    'One row per SKU. If several rows have the same SKU, an active one is used, then the one with the smallest text.';
COMMENT ON COLUMN silver.products.product_sku IS 'Stock keeping unit (SKU), without the invisible characters around it.';
COMMENT ON COLUMN silver.products.product_name IS
    'Name in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.products.product_type IS
    'Type in Keboola, such as cable, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.products.weight_g IS
    'Weight of a piece in grams. NULL: missing, not a number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.products.length_cm IS
    'Length of a piece in centimetres. NULL: missing, not a number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.products.width_cm IS 'Width of a piece in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.products.height_cm IS 'Height of a piece in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.products.is_active IS 'True if is_active in Keboola is 1 or true; false for anything else.';
COMMENT ON COLUMN silver.products.has_dimensions IS 'True if length, width and height are all known.';

DROP TABLE IF EXISTS pg_temp.products_now;
CREATE TEMP TABLE products_now AS
SELECT
    product_sku,
    product_name,
    product_type,
    weight_g,
    length_cm,
    width_cm,
    height_cm,
    is_active,
    length_cm IS NOT NULL AND width_cm IS NOT NULL AND height_cm IS NOT NULL AS has_dimensions
FROM silver.product_rows
WHERE sku_rank = 1;

SELECT * FROM elt.publish_rows('silver.products', 'products_now');
