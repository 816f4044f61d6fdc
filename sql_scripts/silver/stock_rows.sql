-- silver.stock_rows: one row per row of bronze.products_inventory_locations: typed, with its product, and ranked within
-- its link and warehouse.  Reads bronze.products_inventory_locations, bronze.products.
-- silver.stock_levels adds up the used rows of products; silver.stock_without_product adds up all rows without one.
-- silver/stock_issues.sql lists duplicates and rows without a product.

CREATE TABLE IF NOT EXISTS silver.stock_rows (
    link_id              text    NOT NULL,
    warehouse_id         text    NOT NULL,
    link_rank            bigint  NOT NULL,
    is_used              boolean NOT NULL,
    row_count            integer NOT NULL,
    product_sku          text,
    warehouse_name       text,
    warehouse_identifier text,
    quantity_available   numeric,
    quantity_on_hand     numeric,
    quarantined_quantity numeric,
    quantity_unavailable numeric,
    received             jsonb,
    PRIMARY KEY (link_id, warehouse_id, link_rank)
);

COMMENT ON TABLE silver.stock_rows IS
    'One row per row of bronze.products_inventory_locations. If a link has two rows for a warehouse, only one of them counts for the product.';
COMMENT ON COLUMN silver.stock_rows.link_id IS
    'Link to bronze.products.inventory_locations, valid within this load only; empty if missing; its md5 if longer than 200 characters, which an index could not hold.';
COMMENT ON COLUMN silver.stock_rows.warehouse_id IS
    'Id of the warehouse in Keboola; unknown if the stock row has none, or one of more than 200 characters.';
COMMENT ON COLUMN silver.stock_rows.link_rank IS
    'Rank among the rows of this link and warehouse; 1 for the highest quantities.';
COMMENT ON COLUMN silver.stock_rows.is_used IS
    'True if the row counts for its product: rank 1, or no warehouse id. Rows without a warehouse id all count, because they may come from different warehouses.';
COMMENT ON COLUMN silver.stock_rows.row_count IS
    'Rows of this product and warehouse, this one included; 1 for a row without a product.';
COMMENT ON COLUMN silver.stock_rows.product_sku IS
    'SKU of the product with this link; NULL: no product with a SKU has it.';
COMMENT ON COLUMN silver.stock_rows.warehouse_name IS
    'Name in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_rows.warehouse_identifier IS
    'Short code in Keboola, with a blank for each line break. NULL: Keboola has none.';
COMMENT ON COLUMN silver.stock_rows.quantity_available IS 'Pieces that can be sold; NULL: not a number.';
COMMENT ON COLUMN silver.stock_rows.quantity_on_hand IS 'Pieces on the shelf, as received; NULL: not a number.';
COMMENT ON COLUMN silver.stock_rows.quarantined_quantity IS 'Pieces held back for inspection; NULL: not a number.';
COMMENT ON COLUMN silver.stock_rows.quantity_unavailable IS 'Pieces that cannot be sold; NULL: not a number.';
COMMENT ON COLUMN silver.stock_rows.received IS
    'The row as received, if it is not used or a value is an issue. NULL: nothing to report.';

DROP TABLE IF EXISTS pg_temp.stock_rows_now;
CREATE TEMP TABLE stock_rows_now AS
WITH

-- Identical products share a link.  The stock goes to one SKU, the smallest, so that it is not counted twice.
links AS (
    SELECT inventory_locations AS link_id, min(elt.to_key(sku)) AS product_sku
    FROM bronze.products
    WHERE inventory_locations <> ''
    GROUP BY inventory_locations
),

-- MATERIALIZED: each number is parsed once.
typed AS MATERIALIZED (
    SELECT
        CASE
            WHEN length(bronze_row.json_parentid) > 200 THEN md5(bronze_row.json_parentid)
            ELSE coalesce(bronze_row.json_parentid, '')
        END AS link_id,
        coalesce(elt.to_key(bronze_row.warehouse_id), 'unknown') AS warehouse_id,
        links.product_sku,
        elt.to_line(bronze_row.warehouse_name) AS warehouse_name,
        elt.to_line(bronze_row.warehouse_identifier) AS warehouse_identifier,
        elt.to_number(bronze_row.quantity_available) AS quantity_available,
        elt.to_number(bronze_row.quantity_on_hand) AS quantity_on_hand,
        elt.to_number(bronze_row.quarantined_quantity) AS quarantined_quantity,
        elt.to_number(bronze_row.quantity_unavailable) AS quantity_unavailable,
        bronze_row
    FROM bronze.products_inventory_locations AS bronze_row
    LEFT JOIN links ON links.link_id = bronze_row.json_parentid
),

several AS (
    SELECT product_sku, warehouse_id, count(*)::integer AS row_count
    FROM typed
    WHERE product_sku IS NOT NULL
    GROUP BY product_sku, warehouse_id
    HAVING count(*) > 1
),

counted AS (
    SELECT typed.*, coalesce(several.row_count, 1) AS row_count
    FROM typed
    LEFT JOIN several
        ON several.product_sku = typed.product_sku
        AND several.warehouse_id = typed.warehouse_id
),

-- Fast path: most products have one row per warehouse, so only the others are sorted.
ranked AS (
    SELECT *, 1 AS link_rank FROM counted WHERE row_count = 1 AND product_sku IS NOT NULL

    UNION ALL
    SELECT
        *,
        row_number() OVER (
            PARTITION BY link_id, warehouse_id
            ORDER BY
                coalesce(quantity_available, 0) DESC,
                quantity_on_hand DESC NULLS LAST,
                coalesce(quarantined_quantity, 0) DESC,
                coalesce(quantity_unavailable, 0) DESC,
                warehouse_name COLLATE "C",
                warehouse_identifier COLLATE "C",
                bronze_row::text COLLATE "C"
        ) AS link_rank
    FROM counted
    WHERE row_count > 1 OR product_sku IS NULL
)

SELECT
    link_id,
    warehouse_id,
    link_rank,
    link_rank = 1 OR warehouse_id = 'unknown' AS is_used,
    row_count,
    product_sku,
    warehouse_name,
    warehouse_identifier,
    quantity_available,
    quantity_on_hand,
    quarantined_quantity,
    quantity_unavailable,
    CASE WHEN is_doubtful THEN to_jsonb(bronze_row) END AS received
FROM ranked
CROSS JOIN LATERAL (
    VALUES (
        product_sku IS NULL
        OR link_rank > 1
        OR warehouse_id = 'unknown'
        OR num_nulls(quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable) > 0
        OR least(quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable) < 0
    )
) AS look (is_doubtful);

SELECT * FROM elt.publish_rows('silver.stock_rows', 'stock_rows_now');
