-- silver.product_rows: one row per row of bronze.products with a SKU, typed, and ranked within its SKU.
-- Reads bronze.products.  silver.products takes the rows of rank 1; silver/product_issues.sql lists the others.

CREATE TABLE IF NOT EXISTS silver.product_rows (
    product_sku  text    NOT NULL,
    sku_rank     bigint  NOT NULL,
    product_name text,
    product_type text,
    weight_g     numeric,
    length_cm    numeric,
    width_cm     numeric,
    height_cm    numeric,
    is_active    boolean NOT NULL,
    received     jsonb,
    PRIMARY KEY (product_sku, sku_rank)
);

COMMENT ON TABLE silver.product_rows IS
    'One row per row of bronze.products that has a SKU. If several rows have the same SKU, the one with sku_rank 1 is used.';
COMMENT ON COLUMN silver.product_rows.product_sku IS 'Stock keeping unit (SKU), without the invisible characters around it.';
COMMENT ON COLUMN silver.product_rows.sku_rank IS
    '1 for the row that is used. Active rows come first, then the smallest text of the whole row.';
COMMENT ON COLUMN silver.product_rows.product_name IS
    'Name in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.product_rows.product_type IS
    'Type in Keboola, such as cable, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.product_rows.weight_g IS
    'Weight of a piece in grams. NULL: missing, not a number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.product_rows.length_cm IS
    'Length of a piece in centimetres. NULL: missing, not a number above 0, or in an unknown unit.';
COMMENT ON COLUMN silver.product_rows.width_cm IS 'Width of a piece in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.product_rows.height_cm IS 'Height of a piece in centimetres; NULL as for length_cm.';
COMMENT ON COLUMN silver.product_rows.is_active IS
    'True if is_active in Keboola is 1 or true; false for anything else.';
COMMENT ON COLUMN silver.product_rows.received IS
    'The row as received, if it is not used or a value may be an issue. NULL: nothing to report.';

DROP TABLE IF EXISTS pg_temp.product_rows_now;
CREATE TEMP TABLE product_rows_now AS
WITH

length_units (unit, cm) AS (
    VALUES ('cm', 1), ('mm', 0.1), ('m', 100), ('in', 2.54)
),

weight_units (unit, g) AS (
    VALUES ('g', 1), ('kg', 1000), ('oz', 28.349523125), ('lb', 453.59237)
),

rows_with_sku AS (
    SELECT
        bronze_row,
        bronze_row.*,
        elt.to_key(bronze_row.sku) AS product_sku,
        coalesce(lower(elt.to_text(bronze_row.is_active)) IN ('1', 'true'), false) AS is_active_product
    FROM bronze.products AS bronze_row
    WHERE elt.to_key(bronze_row.sku) IS NOT NULL
),

-- A measure of 0 or less is an error of the source and becomes NULL.  MATERIALIZED: each number is parsed once.
typed AS MATERIALIZED (
    SELECT
        bronze_row,
        product_sku,
        is_active_product,
        elt.to_line(name) AS product_name,
        elt.to_line(product_type) AS product_type,
        coalesce(elt.to_text(is_active), '1') <> '1' AS has_odd_is_active,
        concat(elt.to_line(name), elt.to_line(product_type))
        <> concat(elt.to_text(name), elt.to_text(product_type)) AS has_line_break,
        trim_scale(nullif(greatest(elt.to_number(weight_value), 0), 0) * weight_units.g) AS weight_g,
        trim_scale(nullif(greatest(elt.to_number(dimensions_length), 0), 0) * length_units.cm) AS length_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_width), 0), 0) * length_units.cm) AS width_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_height), 0), 0) * length_units.cm) AS height_cm
    FROM rows_with_sku
    LEFT JOIN length_units ON length_units.unit = lower(elt.to_text(dimensions_unit) COLLATE "C")
    LEFT JOIN weight_units ON weight_units.unit = lower(elt.to_text(weight_unit) COLLATE "C")
),

ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY product_sku ORDER BY is_active_product DESC, bronze_row::text COLLATE "C"
        ) AS sku_rank
    FROM typed
)

SELECT
    product_sku,
    sku_rank,
    product_name,
    product_type,
    weight_g,
    length_cm,
    width_cm,
    height_cm,
    is_active_product AS is_active,
    CASE WHEN is_doubtful THEN to_jsonb(bronze_row) END AS received
FROM ranked
CROSS JOIN LATERAL (
    VALUES (
        sku_rank > 1
        OR has_odd_is_active
        OR has_line_break
        OR num_nulls(weight_g, length_cm, width_cm, height_cm) > 0
    )
) AS look (is_doubtful);

SELECT * FROM elt.publish_rows('silver.product_rows', 'product_rows_now');
