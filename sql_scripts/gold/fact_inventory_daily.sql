-- gold.fact_inventory_daily: what was where, on every day that was loaded?
-- Grain: one row per product, warehouse and day.
-- Reads silver.stock_history, silver.loaded_days, silver.product_history, silver.warehouses.
-- Rows are as many as a full load times the days: ask for a day, a range of days, or some products.

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
    'Grain: one row per product, warehouse and loaded day; stock without a product is one row per warehouse and day, under product_key 0. Ask for days or products: WHERE date_key = ..';
COMMENT ON COLUMN gold.fact_inventory_daily.date_key IS 'The day, in gold.dim_date.';
COMMENT ON COLUMN gold.fact_inventory_daily.product_key IS 'The product as it was on that day, in gold.dim_product.';
COMMENT ON COLUMN gold.fact_inventory_daily.warehouse_key IS 'The warehouse, in gold.dim_warehouse.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_available IS 'Pieces that could be sold.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_on_hand IS 'Pieces on the shelf, not more than were available.';
COMMENT ON COLUMN gold.fact_inventory_daily.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN gold.fact_inventory_daily.quantity_unavailable IS 'Pieces that could not be sold.';
