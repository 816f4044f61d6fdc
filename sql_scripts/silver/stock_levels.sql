-- silver.stock_levels: one row per product and warehouse.  Reads silver.stock_rows.
-- silver.data_quality_issues lists rows without a product, duplicates, and every changed value.

CREATE TABLE IF NOT EXISTS silver.stock_levels (
    product_sku               text    NOT NULL,
    warehouse_id              text    NOT NULL,
    warehouse_name            text,
    warehouse_identifier      text,
    quantity_available        numeric NOT NULL,
    quantity_on_hand          numeric NOT NULL CHECK (quantity_on_hand <= quantity_available),
    quantity_on_hand_received numeric,
    quarantined_quantity      numeric NOT NULL,
    quantity_unavailable      numeric NOT NULL,
    bronze_row_count          integer NOT NULL,
    PRIMARY KEY (product_sku, warehouse_id)
);

COMMENT ON TABLE silver.stock_levels IS
    'One row per product and warehouse. If several rows have the same SKU, the stock of all of them is added up. A quantity that is not a number counts as 0.';
COMMENT ON COLUMN silver.stock_levels.product_sku IS 'SKU, as in silver.products.';
COMMENT ON COLUMN silver.stock_levels.warehouse_id IS
    'Id of the warehouse in Keboola; unknown if the stock row has none.';
COMMENT ON COLUMN silver.stock_levels.warehouse_name IS
    'Name in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_levels.warehouse_identifier IS
    'Short code in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_levels.quantity_available IS 'Pieces that can be sold.';
COMMENT ON COLUMN silver.stock_levels.quantity_on_hand IS
    'Pieces on the shelf; lowered to quantity_available if the source says more.';
COMMENT ON COLUMN silver.stock_levels.quantity_on_hand_received IS
    'Pieces on the shelf as received, before they were lowered. NULL: not a number.';
COMMENT ON COLUMN silver.stock_levels.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN silver.stock_levels.quantity_unavailable IS 'Pieces that cannot be sold.';
COMMENT ON COLUMN silver.stock_levels.bronze_row_count IS
    'Bronze rows of this product and warehouse, duplicates included. Duplicates are not added up.';

DROP TABLE IF EXISTS pg_temp.stock_levels_now;
CREATE TEMP TABLE stock_levels_now AS
WITH

-- The owner decided: quantity_on_hand is at most quantity_available (docs/inventory.md).
used AS (
    SELECT
        product_sku,
        warehouse_id,
        warehouse_name,
        warehouse_identifier,
        coalesce(quantity_available, 0) AS quantity_available,
        least(coalesce(quantity_on_hand, 0), coalesce(quantity_available, 0)) AS quantity_on_hand,
        quantity_on_hand AS quantity_on_hand_received,
        coalesce(quarantined_quantity, 0) AS quarantined_quantity,
        coalesce(quantity_unavailable, 0) AS quantity_unavailable,
        row_count AS bronze_row_count
    FROM silver.stock_rows
    WHERE product_sku IS NOT NULL AND is_used
)

-- Fast path: most products have one row per warehouse, so only the others are summed.
SELECT * FROM used WHERE bronze_row_count = 1

UNION ALL
SELECT
    product_sku,
    warehouse_id,
    min(warehouse_name COLLATE "C"),
    min(warehouse_identifier COLLATE "C"),
    sum(quantity_available),
    sum(quantity_on_hand),
    sum(quantity_on_hand_received),
    sum(quarantined_quantity),
    sum(quantity_unavailable),
    bronze_row_count
FROM used
WHERE bronze_row_count > 1
GROUP BY product_sku, warehouse_id, bronze_row_count;

SELECT * FROM elt.publish_rows('silver.stock_levels', 'stock_levels_now');
