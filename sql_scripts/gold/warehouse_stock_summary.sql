-- gold.warehouse_stock_summary: how much does each warehouse hold, and how much space does it take?
-- Reads silver.stock_levels, silver.stock_without_product, silver.products, silver.warehouses.

CREATE OR REPLACE VIEW gold.warehouse_stock_summary AS
WITH

stock AS (
    SELECT
        stock_levels.warehouse_id,
        count(*) AS product_count,
        count(*) FILTER (WHERE stock_levels.quantity_available > 0) AS products_in_stock,
        sum(stock_levels.quantity_available) AS quantity_available,
        sum(stock_levels.quantity_on_hand) AS quantity_on_hand,
        sum(stock_levels.quarantined_quantity) AS quarantined_quantity,
        sum(stock_levels.quantity_unavailable) AS quantity_unavailable,
        sum(
            products.length_cm * products.width_cm * products.height_cm * stock_levels.quantity_on_hand
        ) FILTER (WHERE stock_levels.quantity_on_hand > 0) AS space_taken_cm3,
        count(*) FILTER (WHERE stock_levels.quantity_on_hand > 0 AND products.has_dimensions IS NOT TRUE)
            AS products_without_volume
    FROM silver.stock_levels
    LEFT JOIN silver.products ON products.product_sku = stock_levels.product_sku
    GROUP BY stock_levels.warehouse_id
)

SELECT
    warehouses.warehouse_id,
    warehouses.warehouse_name,
    warehouses.warehouse_identifier,
    coalesce(stock.product_count, 0) AS product_count,
    coalesce(stock.products_in_stock, 0) AS products_in_stock,
    coalesce(stock.quantity_available, 0) AS quantity_available,
    coalesce(stock.quantity_on_hand, 0) AS quantity_on_hand,
    coalesce(stock.quarantined_quantity, 0) AS quarantined_quantity,
    coalesce(stock.quantity_unavailable, 0) AS quantity_unavailable,
    coalesce(stock_without_product.quantity_available, 0) AS quantity_without_product,
    coalesce(round(stock.space_taken_cm3, 3), 0) AS space_taken_cm3,
    coalesce(stock.products_without_volume, 0) AS products_without_volume
FROM silver.warehouses
LEFT JOIN stock ON stock.warehouse_id = warehouses.warehouse_id
LEFT JOIN silver.stock_without_product ON stock_without_product.warehouse_id = warehouses.warehouse_id
WHERE warehouses.is_loaded;

COMMENT ON VIEW gold.warehouse_stock_summary IS
    'One row per warehouse of the current load: its products, its pieces, and the space that they take.';
COMMENT ON COLUMN gold.warehouse_stock_summary.warehouse_id IS
    'Id of the warehouse in Keboola; unknown for stock without one.';
COMMENT ON COLUMN gold.warehouse_stock_summary.warehouse_name IS
    'Latest name of the warehouse, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.warehouse_stock_summary.warehouse_identifier IS
    'Latest short code of the warehouse. NULL: Keboola has none.';
COMMENT ON COLUMN gold.warehouse_stock_summary.product_count IS
    'Products with a stock row in this warehouse, also those without pieces.';
COMMENT ON COLUMN gold.warehouse_stock_summary.products_in_stock IS
    'Products of which at least one piece can be sold here.';
COMMENT ON COLUMN gold.warehouse_stock_summary.quantity_available IS 'Pieces that can be sold, of all known products.';
COMMENT ON COLUMN gold.warehouse_stock_summary.quantity_on_hand IS
    'Pieces on the shelf; of each product at most the pieces that can be sold.';
COMMENT ON COLUMN gold.warehouse_stock_summary.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN gold.warehouse_stock_summary.quantity_unavailable IS 'Pieces that cannot be sold.';
COMMENT ON COLUMN gold.warehouse_stock_summary.quantity_without_product IS
    'Pieces of unmatched stock that could be sold. No other column counts them.';
COMMENT ON COLUMN gold.warehouse_stock_summary.space_taken_cm3 IS
    'Cubic centimetres that the pieces on the shelf take, those of quantity_on_hand with a known volume. Quarantined, unavailable and unmatched pieces are not counted.';
COMMENT ON COLUMN gold.warehouse_stock_summary.products_without_volume IS
    'Products on the shelf with unknown volume; space_taken_cm3 does not include them.';
