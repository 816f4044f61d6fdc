-- gold.dim_product: the products and their former names, types and sizes (a slowly changing dimension of type 2).
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
    'One row per product and range of days on which its attributes stayed the same. product_key 0 is the unknown product. For today''s products: WHERE is_current.';
COMMENT ON COLUMN gold.dim_product.product_key IS
    'Number of this version of the product. Facts join by it, and it never changes. 0: unknown product.';
COMMENT ON COLUMN gold.dim_product.product_sku IS
    'Stock keeping unit (SKU), the same in all versions of a product. Empty for the unknown product.';
COMMENT ON COLUMN gold.dim_product.product_name IS 'Name on these days, without line breaks. NULL: Keboola had none.';
COMMENT ON COLUMN gold.dim_product.product_type IS 'Type on these days, such as cable. NULL: Keboola had none.';
COMMENT ON COLUMN gold.dim_product.product_status IS
    'Active or Inactive on these days; Unknown for the unknown product.';
COMMENT ON COLUMN gold.dim_product.weight_g IS 'Weight of a piece in grams; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.length_cm IS 'Length of a piece in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.width_cm IS 'Width of a piece in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.height_cm IS 'Height of a piece in centimetres; NULL: unknown.';
COMMENT ON COLUMN gold.dim_product.volume_cm3 IS
    'Length x width x height of a piece in cubic centimetres. NULL: one of them is unknown.';
COMMENT ON COLUMN gold.dim_product.has_dimensions IS 'True if length, width and height are all known.';
COMMENT ON COLUMN gold.dim_product.valid_from IS 'First day of the range; -infinity for the unknown product.';
COMMENT ON COLUMN gold.dim_product.valid_to IS 'First day after the range; infinity: the range has not ended.';
COMMENT ON COLUMN gold.dim_product.is_current IS 'True if the range has not ended.';
