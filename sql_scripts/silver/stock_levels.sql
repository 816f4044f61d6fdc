-- silver.stock_levels: one row per product and warehouse.  Reads bronze.products_inventory_locations, bronze.products.
-- Rows without a product, duplicates, and every value that was changed are listed in silver.data_quality_issues.

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
    'One row per product and warehouse. Stock linked to any row of a SKU counts for it; a quantity that is no number counts as 0.';
COMMENT ON COLUMN silver.stock_levels.product_sku IS 'The product, in silver.products.';
COMMENT ON COLUMN silver.stock_levels.warehouse_id IS 'The warehouse; ''unknown'' where it is missing.';
COMMENT ON COLUMN silver.stock_levels.warehouse_name IS 'Name of the warehouse, with a blank for each line break in it; NULL where it is missing.';
COMMENT ON COLUMN silver.stock_levels.warehouse_identifier IS 'Short code of the warehouse, of one line as its name; NULL where it is missing.';
COMMENT ON COLUMN silver.stock_levels.quantity_available IS 'Pieces that can be sold.';
COMMENT ON COLUMN silver.stock_levels.quantity_on_hand IS
    'Pieces on the shelf; set to quantity_available where the number received is higher.';
COMMENT ON COLUMN silver.stock_levels.quantity_on_hand_received IS
    'Pieces on the shelf as received; NULL where that is no number.';
COMMENT ON COLUMN silver.stock_levels.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN silver.stock_levels.quantity_unavailable IS 'Pieces that cannot be sold.';
COMMENT ON COLUMN silver.stock_levels.bronze_row_count IS
    'Rows of bronze that name this product and warehouse; where they are several, they are summed without duplicates.';

DROP TABLE IF EXISTS pg_temp.stock_levels_now;
CREATE TEMP TABLE stock_levels_now AS
WITH

-- Identical products share a link, so each link is taken once: the join must not double stock.  From here on the place
-- of a row that has the link stands for it, which is shorter by 30 bytes.
links AS (
    SELECT
        inventory_locations AS link_id,
        min(ctid) AS link_place,
        min(elt.to_text(sku)) AS product_sku
    FROM bronze.products
    WHERE inventory_locations <> ''
    GROUP BY inventory_locations
),

typed AS (
    SELECT
        links.product_sku,
        coalesce(elt.to_text(warehouse_id), 'unknown') AS warehouse_id,
        elt.to_text(regexp_replace(warehouse_name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS warehouse_name,
        elt.to_text(
            regexp_replace(warehouse_identifier, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')
        ) AS warehouse_identifier,
        coalesce(elt.to_number(quantity_available), 0) AS quantity_available,
        elt.to_number(quantity_on_hand) AS quantity_on_hand_received,
        coalesce(elt.to_number(quarantined_quantity), 0) AS quarantined_quantity,
        coalesce(elt.to_number(quantity_unavailable), 0) AS quantity_unavailable,
        links.link_place
    FROM bronze.products_inventory_locations
    INNER JOIN links ON links.link_id = json_parentid
    WHERE links.product_sku IS NOT NULL
    OFFSET 0  -- so that each number is parsed once
)

SELECT
    product_sku,
    warehouse_id,
    warehouse_name,
    warehouse_identifier,
    quantity_available,
    least(coalesce(quantity_on_hand_received, 0), quantity_available) AS quantity_on_hand,
    quantity_on_hand_received,
    quarantined_quantity,
    quantity_unavailable,
    1 AS bronze_row_count,
    link_place
FROM typed;

-- The few products and warehouses that several rows name.  A link that names a warehouse twice counts once, with the
-- highest quantities; rows whose warehouse is unknown may come from several, so each of them counts.
WITH

named_by_several AS (
    SELECT product_sku, warehouse_id
    FROM stock_levels_now
    GROUP BY product_sku, warehouse_id
    HAVING count(*) > 1
),

taken_out AS (
    DELETE FROM stock_levels_now
    USING named_by_several
    WHERE stock_levels_now.product_sku = named_by_several.product_sku
        AND stock_levels_now.warehouse_id = named_by_several.warehouse_id
    RETURNING stock_levels_now.*
),

ranked AS (
    SELECT
        *,
        count(*) OVER (PARTITION BY product_sku, warehouse_id) AS row_count,
        row_number() OVER (
            PARTITION BY link_place, warehouse_id
            ORDER BY
                quantity_available DESC,
                quantity_on_hand_received DESC NULLS LAST,
                quarantined_quantity DESC,
                quantity_unavailable DESC,
                warehouse_name COLLATE "C",
                warehouse_identifier COLLATE "C"
        ) AS place
    FROM taken_out
)

INSERT INTO stock_levels_now
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
    max(row_count)
FROM ranked
WHERE place = 1 OR warehouse_id = 'unknown'
GROUP BY product_sku, warehouse_id;

ALTER TABLE pg_temp.stock_levels_now DROP COLUMN link_place;

SELECT * FROM elt.publish_rows('silver.stock_levels', 'stock_levels_now');
