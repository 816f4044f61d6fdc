-- gold.fact_inventory: what is in which warehouse today?
-- Grain: one row per product and warehouse of the current load.
-- Reads silver.stock_levels, silver.stock_without_product, silver.loaded_days, silver.product_history,
-- silver.warehouses.

CREATE OR REPLACE VIEW gold.fact_inventory AS
WITH

stock AS (
    SELECT
        product_sku,
        warehouse_id,
        quantity_available,
        quantity_on_hand,
        quarantined_quantity,
        quantity_unavailable
    FROM silver.stock_levels

    UNION ALL
    SELECT '', warehouse_id, quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable
    FROM silver.stock_without_product
),

today AS NOT MATERIALIZED (
    SELECT day FROM silver.loaded_days WHERE is_current
),

products AS (
    SELECT product_sku, product_key
    FROM silver.product_history
    INNER JOIN today ON today.day >= valid_from AND today.day < valid_to
)

SELECT
    (SELECT day FROM today) AS date_key,
    coalesce(products.product_key, 0) AS product_key,
    coalesce(warehouses.warehouse_key, 0) AS warehouse_key,
    stock.quantity_available,
    stock.quantity_on_hand,
    stock.quarantined_quantity,
    stock.quantity_unavailable
FROM stock
LEFT JOIN products ON products.product_sku = stock.product_sku
LEFT JOIN silver.warehouses ON warehouses.warehouse_id = stock.warehouse_id;

COMMENT ON VIEW gold.fact_inventory IS
    'Grain: one row per product and warehouse of the current load. Unmatched stock has one row per warehouse, with product_key 0.';
COMMENT ON COLUMN gold.fact_inventory.date_key IS 'Day of the load, as in gold.dim_date.';
COMMENT ON COLUMN gold.fact_inventory.product_key IS
    'Version of the product on that day, as in gold.dim_product; 0: unmatched stock.';
COMMENT ON COLUMN gold.fact_inventory.warehouse_key IS 'Warehouse, as in gold.dim_warehouse; 0: unknown warehouse.';
COMMENT ON COLUMN gold.fact_inventory.quantity_available IS 'Pieces that can be sold.';
COMMENT ON COLUMN gold.fact_inventory.quantity_on_hand IS 'Pieces on the shelf; never above quantity_available.';
COMMENT ON COLUMN gold.fact_inventory.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN gold.fact_inventory.quantity_unavailable IS 'Pieces that cannot be sold.';
