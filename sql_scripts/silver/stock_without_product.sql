-- silver.stock_without_product: one row per warehouse that has stock which no product accounts for.
-- Reads bronze.products_inventory_locations, bronze.products.  Each row of it is listed in silver.data_quality_issues.

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
WITH

links AS (
    SELECT DISTINCT inventory_locations AS link_id
    FROM bronze.products
    WHERE inventory_locations <> '' AND elt.to_text(sku) IS NOT NULL
),

-- MATERIALIZED, so that these few rows are found before any is parsed.
rows_without_product AS MATERIALIZED (
    SELECT stock.*
    FROM bronze.products_inventory_locations AS stock
    LEFT JOIN links ON links.link_id = stock.json_parentid
    WHERE links.link_id IS NULL
),

typed AS (
    SELECT
        coalesce(elt.to_text(warehouse_id), 'unknown') AS warehouse_id,
        elt.to_text(regexp_replace(warehouse_name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS warehouse_name,
        elt.to_text(
            regexp_replace(warehouse_identifier, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')
        ) AS warehouse_identifier,
        coalesce(elt.to_number(quantity_available), 0) AS quantity_available,
        coalesce(elt.to_number(quantity_on_hand), 0) AS quantity_on_hand,
        coalesce(elt.to_number(quarantined_quantity), 0) AS quarantined_quantity,
        coalesce(elt.to_number(quantity_unavailable), 0) AS quantity_unavailable
    FROM rows_without_product
)

SELECT
    warehouse_id,
    min(warehouse_name COLLATE "C") AS warehouse_name,
    min(warehouse_identifier COLLATE "C") AS warehouse_identifier,
    sum(quantity_available) AS quantity_available,
    sum(least(quantity_on_hand, quantity_available)) AS quantity_on_hand,
    sum(quarantined_quantity) AS quarantined_quantity,
    sum(quantity_unavailable) AS quantity_unavailable,
    count(*)::integer AS bronze_row_count
FROM typed
GROUP BY warehouse_id;

SELECT * FROM elt.publish_rows('silver.stock_without_product', 'stock_without_product_now');
