-- gold.dim_product: the products, each with all it was ever called (a slowly changing dimension of type 2).
-- Reads silver.product_history.

CREATE OR REPLACE VIEW gold.dim_product AS
SELECT
    product_key,
    product_sku,
    product_name,
    product_type,
    CASE WHEN product_key = 0 THEN 'Unknown' WHEN is_active THEN 'Active' ELSE 'Inactive' END AS product_status,
    weight_g,
    length_cm,
    width_cm,
    height_cm,
    round(length_cm * width_cm * height_cm, 3) AS volume_cm3,
    has_dimensions,
    valid_from,
    valid_to,
    is_current
FROM silver.product_history;

COMMENT ON VIEW gold.dim_product IS
    'One row per product and range of days on which its attributes stayed the same; product_key 0 is the unknown product. Today''s products: WHERE is_current.';
COMMENT ON COLUMN gold.dim_product.product_key IS 'Number of this version of the product; facts refer to it. It never changes.';
COMMENT ON COLUMN gold.dim_product.product_sku IS 'Stock keeping unit: the same for all versions of a product. Empty for the unknown one.';
COMMENT ON COLUMN gold.dim_product.product_name IS 'Name of the product in these days.';
COMMENT ON COLUMN gold.dim_product.product_type IS 'Kind of product in these days.';
COMMENT ON COLUMN gold.dim_product.product_status IS 'Active or Inactive in these days; Unknown for the unknown product.';
COMMENT ON COLUMN gold.dim_product.weight_g IS 'Weight in grams; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.length_cm IS 'Length in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.width_cm IS 'Width in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.height_cm IS 'Height in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.volume_cm3 IS 'Volume in cubic centimetres; NULL where a dimension is unknown.';
COMMENT ON COLUMN gold.dim_product.has_dimensions IS 'Whether length, width and height are all known.';
COMMENT ON COLUMN gold.dim_product.valid_from IS 'The first day on which this holds.';
COMMENT ON COLUMN gold.dim_product.valid_to IS 'The first day on which it no longer holds; infinity: it still does.';
COMMENT ON COLUMN gold.dim_product.is_current IS 'Whether it holds on the newest day.';
