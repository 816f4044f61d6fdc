-- gold.quarantined_stock: what is held back for inspection, where, and since when?
-- Reads silver.stock_levels, silver.stock_without_product, silver.stock_history, silver.loaded_days, silver.products,
-- silver.warehouses.

CREATE OR REPLACE VIEW gold.quarantined_stock AS
WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

quarantined AS (
    SELECT product_sku, warehouse_id, quarantined_quantity
    FROM silver.stock_levels
    WHERE quarantined_quantity > 0

    UNION ALL
    SELECT '', warehouse_id, quarantined_quantity
    FROM silver.stock_without_product
    WHERE quarantined_quantity > 0
),

-- A day without the product does not end a quarantine, because its stock on that day is unknown.
ranges AS (
    SELECT
        quarantined.product_sku,
        quarantined.warehouse_id,
        stock.valid_from,
        max(stock.valid_from) FILTER (WHERE stock.quarantined_quantity <= 0)
            OVER (PARTITION BY quarantined.product_sku, quarantined.warehouse_id) AS last_without
    FROM quarantined
    CROSS JOIN today
    INNER JOIN silver.stock_history AS stock
        ON stock.product_sku = quarantined.product_sku
        AND stock.warehouse_id = quarantined.warehouse_id
        AND stock.valid_from <= today.day
),

since AS (
    SELECT product_sku, warehouse_id, min(valid_from) AS quarantined_since
    FROM ranges
    WHERE valid_from > coalesce(last_without, '-infinity')
    GROUP BY product_sku, warehouse_id
)

SELECT
    quarantined.product_sku,
    CASE WHEN quarantined.product_sku = '' THEN 'Unknown product' ELSE products.product_name END AS product_name,
    products.product_type,
    CASE
        WHEN quarantined.product_sku = '' THEN 'Unknown'
        WHEN products.is_active THEN 'Active'
        ELSE 'Inactive'
    END AS product_status,
    quarantined.warehouse_id,
    warehouses.warehouse_name,
    quarantined.quarantined_quantity,
    since.quarantined_since,
    today.day - since.quarantined_since AS days_in_quarantine
FROM quarantined
CROSS JOIN today
LEFT JOIN since ON since.product_sku = quarantined.product_sku AND since.warehouse_id = quarantined.warehouse_id
LEFT JOIN silver.products ON products.product_sku = quarantined.product_sku
LEFT JOIN silver.warehouses ON warehouses.warehouse_id = quarantined.warehouse_id;

COMMENT ON VIEW gold.quarantined_stock IS
    'One row per product and warehouse with quarantined pieces. Unmatched stock has one row per warehouse.';
COMMENT ON COLUMN gold.quarantined_stock.product_sku IS 'Stock keeping unit (SKU); empty for unmatched stock.';
COMMENT ON COLUMN gold.quarantined_stock.product_name IS
    'Name in the current load, without line breaks; Unknown product for unmatched stock. NULL: Keboola has none.';
COMMENT ON COLUMN gold.quarantined_stock.product_type IS
    'Type in the current load, such as cable. NULL: Keboola has none, or unmatched stock.';
COMMENT ON COLUMN gold.quarantined_stock.product_status IS 'Active or Inactive; Unknown for unmatched stock.';
COMMENT ON COLUMN gold.quarantined_stock.warehouse_id IS
    'Id of the warehouse in Keboola; unknown for stock without one.';
COMMENT ON COLUMN gold.quarantined_stock.warehouse_name IS
    'Latest name of the warehouse, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.quarantined_stock.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN gold.quarantined_stock.quarantined_since IS
    'First loaded day from which on there were always quarantined pieces. Earlier days than the first loaded one are unknown.';
COMMENT ON COLUMN gold.quarantined_stock.days_in_quarantine IS
    'Days from quarantined_since to the day of the load; 0: since today.';
