-- silver.stock_without_product: one row per warehouse that has unmatched stock: its link leads to no product.
-- Reads silver.stock_rows.  Each row that is summed is listed in silver.data_quality_issues.

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
    'One row per warehouse: the sum of its stock rows whose link leads to no product with a SKU.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_id IS 'The warehouse; ''unknown'' where it is missing.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_name IS 'Name of the warehouse, with a blank for each line break in it; NULL where it is missing.';
COMMENT ON COLUMN silver.stock_without_product.warehouse_identifier IS
    'Short code of the warehouse, of one line as its name; NULL where it is missing.';
COMMENT ON COLUMN silver.stock_without_product.quantity_available IS 'Pieces that could be sold, if it were known what they are.';
COMMENT ON COLUMN silver.stock_without_product.quantity_on_hand IS
    'Pieces on the shelf, in no row more than are available there.';
COMMENT ON COLUMN silver.stock_without_product.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN silver.stock_without_product.quantity_unavailable IS 'Pieces that cannot be sold.';
COMMENT ON COLUMN silver.stock_without_product.bronze_row_count IS 'Rows of bronze that were summed.';

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
