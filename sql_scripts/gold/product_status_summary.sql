-- gold.product_status_summary: which products are active, how much of each is in stock, and is it enough?
-- Reads silver.products, silver.product_stock, silver.stock_thresholds.

CREATE OR REPLACE VIEW gold.product_status_summary AS
WITH

products AS (
    SELECT
        products.product_sku,
        products.product_name,
        products.product_type,
        products.is_active,
        products.length_cm * products.width_cm * products.height_cm AS volume_cm3,
        stock.total_stock,
        stock.quantity_on_hand,
        stock.quarantined_quantity,
        stock.quantity_unavailable,
        stock.warehouse_count,
        coalesce(of_type.low_stock_threshold, of_all.low_stock_threshold) AS low_stock_threshold
    FROM silver.products
    INNER JOIN silver.product_stock AS stock ON stock.product_sku = products.product_sku
    LEFT JOIN silver.stock_thresholds AS of_type ON of_type.product_type = products.product_type
    LEFT JOIN silver.stock_thresholds AS of_all ON of_all.product_type = '*'
)

SELECT
    product_sku,
    product_name,
    product_type,
    CASE WHEN is_active THEN 'Active' ELSE 'Inactive' END AS product_status,
    total_stock,
    quantity_on_hand,
    quarantined_quantity,
    quantity_unavailable,
    warehouse_count,
    silver.stock_status(total_stock, low_stock_threshold) AS stock_status,
    round(volume_cm3, 3) AS volume_cm3,
    round(volume_cm3 * greatest(quantity_on_hand, 0), 3) AS space_taken_cm3
FROM products;

COMMENT ON VIEW gold.product_status_summary IS
    'One row per product: is it active, how much of it is in stock in all warehouses, and is that enough?';
COMMENT ON COLUMN gold.product_status_summary.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.product_status_summary.product_name IS
    'Name in the current load, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.product_status_summary.product_type IS
    'Type in the current load, such as cable. NULL: Keboola has none.';
COMMENT ON COLUMN gold.product_status_summary.product_status IS 'Active or Inactive, by is_active in Keboola.';
COMMENT ON COLUMN gold.product_status_summary.total_stock IS
    'Pieces that can be sold: quantity_available summed over all warehouses.';
COMMENT ON COLUMN gold.product_status_summary.quantity_on_hand IS
    'Pieces on the shelf; in no warehouse more than can be sold there.';
COMMENT ON COLUMN gold.product_status_summary.quarantined_quantity IS
    'Pieces held back for inspection, in all warehouses.';
COMMENT ON COLUMN gold.product_status_summary.quantity_unavailable IS 'Pieces that cannot be sold, in all warehouses.';
COMMENT ON COLUMN gold.product_status_summary.warehouse_count IS
    'Warehouses with a stock row of the product, the unknown warehouse included.';
COMMENT ON COLUMN gold.product_status_summary.stock_status IS
    'Out of Stock: total_stock is 0 or less; Low Stock: up to the threshold in silver.stock_thresholds; In Stock: above it.';
COMMENT ON COLUMN gold.product_status_summary.volume_cm3 IS
    'Length x width x height of a piece in cubic centimetres. NULL: one of them is unknown.';
COMMENT ON COLUMN gold.product_status_summary.space_taken_cm3 IS
    'Cubic centimetres that the pieces on the shelf take, those of quantity_on_hand. Quarantined and unavailable pieces are not counted. NULL: the volume is unknown.';
