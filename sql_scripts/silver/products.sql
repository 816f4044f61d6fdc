-- silver.products: one row per SKU.  Reads silver.product_rows.
-- Rows without a SKU, and all but one row of a SKU, are listed in silver.data_quality_issues.

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
    'One row per SKU. Where several rows name a SKU, an active one wins, then the one whose text is smallest.';
COMMENT ON COLUMN silver.products.product_sku IS 'Stock keeping unit, without the blanks around it.';
COMMENT ON COLUMN silver.products.product_name IS
    'Name of the product, with a blank for each line break in it; NULL where it is missing.';
COMMENT ON COLUMN silver.products.product_type IS
    'Kind of product, with a blank for each line break in it; NULL where it is missing.';
COMMENT ON COLUMN silver.products.weight_g IS
    'Weight in grams; NULL where it is missing, no number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.products.length_cm IS
    'Length in centimetres; NULL where it is missing, no number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.products.width_cm IS 'Width in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.products.height_cm IS 'Height in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.products.is_active IS 'True where is_active is 1 or true, false for anything else.';
COMMENT ON COLUMN silver.products.has_dimensions IS 'Whether length, width and height are all known.';

DROP TABLE IF EXISTS pg_temp.products_now;
CREATE TEMP TABLE products_now AS
<<<<<<< HEAD
=======
WITH

length_units (unit, cm) AS (
    VALUES ('cm', 1), ('mm', 0.1), ('m', 100), ('in', 2.54)
),

weight_units (unit, g) AS (
    VALUES ('g', 1), ('kg', 1000), ('oz', 28.349523125), ('lb', 453.59237)
),

rows_with_sku AS (
    SELECT
        *,
        elt.to_text(sku) AS product_sku,
        coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) AS is_active_product,
        products::text AS row_text
    FROM bronze.products
    WHERE elt.to_text(sku) IS NOT NULL
),

one_row_per_sku AS (
    SELECT DISTINCT ON (product_sku) *
    FROM rows_with_sku
    ORDER BY product_sku ASC, is_active_product DESC, row_text COLLATE "C"
),

-- A number of 0 or less measures nothing.  MATERIALIZED, so that each measure is parsed once.
measured AS MATERIALIZED (
    SELECT
        product_sku,
        elt.to_text(regexp_replace(name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS product_name,
        elt.to_text(regexp_replace(product_type, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS product_type,
        trim_scale(nullif(greatest(elt.to_number(weight_value), 0), 0) * weight_units.g) AS weight_g,
        trim_scale(nullif(greatest(elt.to_number(dimensions_length), 0), 0) * length_units.cm) AS length_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_width), 0), 0) * length_units.cm) AS width_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_height), 0), 0) * length_units.cm) AS height_cm,
        is_active_product AS is_active
    FROM one_row_per_sku
    LEFT JOIN length_units ON length_units.unit = lower(elt.to_text(dimensions_unit) COLLATE "C")
    LEFT JOIN weight_units ON weight_units.unit = lower(elt.to_text(weight_unit) COLLATE "C")
)

>>>>>>> main
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
