-- gold.fact_inventory_daily: what was in which warehouse on each loaded day?
-- Grain: one row per product, warehouse and day.
-- Reads silver.stock_history, silver.loaded_days, silver.product_history, silver.warehouses.
-- It has the rows of a full load for each day.  Select a day, a range of days or some products, to keep queries fast.

CREATE OR REPLACE VIEW gold.fact_inventory_daily AS
SELECT
    loaded_days.day AS date_key,
    coalesce(products.product_key, 0) AS product_key,
    coalesce(warehouses.warehouse_key, 0) AS warehouse_key,
    stock.quantity_available,
    stock.quantity_on_hand,
    stock.quarantined_quantity,
    stock.quantity_unavailable
FROM silver.stock_history AS stock
INNER JOIN silver.loaded_days ON loaded_days.day >= stock.valid_from AND loaded_days.day < stock.valid_to
LEFT JOIN silver.product_history AS products
    ON products.product_sku = stock.product_sku
    AND loaded_days.day >= products.valid_from
    AND loaded_days.day < products.valid_to
LEFT JOIN silver.warehouses ON warehouses.warehouse_id = stock.warehouse_id;

COMMENT ON VIEW gold.fact_inventory_daily IS
    'Grain: one row per product, warehouse and loaded day. Unmatched stock has one row per warehouse and day, with product_key 0. Select days or products, because all of it is large: WHERE date_key = ..';
COMMENT ON COLUMN gold.fact_inventory_daily.date_key IS 'Loaded day, as in gold.dim_date.';
COMMENT ON COLUMN gold.fact_inventory_daily.product_key IS
    'Version of the product on that day, as in gold.dim_product; 0: unmatched stock.';
COMMENT ON COLUMN gold.fact_inventory_daily.warehouse_key IS
    'Warehouse, as in gold.dim_warehouse; 0: unknown warehouse.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_available IS 'Pieces that could be sold.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_on_hand IS 'Pieces on the shelf; never above quantity_available.';
COMMENT ON COLUMN gold.fact_inventory_daily.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_unavailable IS 'Pieces that could not be sold.';
