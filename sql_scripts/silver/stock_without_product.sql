-- silver.stock_without_product: one row per warehouse with unmatched stock, which has no product with a SKU.
-- Reads silver.stock_rows.  silver.data_quality_issues lists each row that is added up here.

CREATE TABLE IF NOT EXISTS silver.stock_without_product (
    warehouse_id         text    PRIMARY KEY,
    warehouse_name       text,
    warehouse_identifier text,
    quantity_available   numeric NOT NULL,
    quantity_on_hand     numeric NOT NULL CHECK (quantity_on_hand <= quantity_available),
    quarantined_quantity numeric NOT NULL,
    quantity_unavailable numeric NOT NULL,
    bronze_row_count     integer NOT NULL
);

COMMENT ON TABLE silver.stock_without_product IS
    'One row per warehouse: the sum of its stock rows whose link matches no product with a SKU.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_id IS
    'Id of the warehouse in Keboola; unknown if the stock row has none.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_name IS
    'Name in Keboola, the smallest text if rows differ. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_identifier IS
    'Short code in Keboola, the smallest text if rows differ. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_without_product.quantity_available IS
    'Pieces that could be sold if their product were known.';
COMMENT ON COLUMN silver.stock_without_product.quantity_on_hand IS
    'Pieces on the shelf; in each row at most the available ones.';
COMMENT ON COLUMN silver.stock_without_product.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN silver.stock_without_product.quantity_unavailable IS 'Pieces that cannot be sold.';
COMMENT ON COLUMN silver.stock_without_product.bronze_row_count IS 'Bronze rows that were added up.';

DROP TABLE IF EXISTS pg_temp.stock_without_product_now;
CREATE TEMP TABLE stock_without_product_now AS
SELECT
    warehouse_id,
    min(warehouse_name COLLATE "C") AS warehouse_name,
    min(warehouse_identifier COLLATE "C") AS warehouse_identifier,
    coalesce(sum(quantity_available), 0) AS quantity_available,
    sum(least(coalesce(quantity_on_hand, 0), coalesce(quantity_available, 0))) AS quantity_on_hand,
    coalesce(sum(quarantined_quantity), 0) AS quarantined_quantity,
    coalesce(sum(quantity_unavailable), 0) AS quantity_unavailable,
    count(*)::integer AS bronze_row_count
FROM silver.stock_rows
WHERE product_sku IS NULL
GROUP BY warehouse_id;

SELECT * FROM elt.publish_rows('silver.stock_without_product', 'stock_without_product_now');
