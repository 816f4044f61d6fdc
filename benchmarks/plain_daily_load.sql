-- What a person would write by hand for an ordinary day: empty every table and fill it again, `psql -f`.
-- daily_load.py puts the CSV files and their columns in, and compares the silver with that of sql_scripts/silver.

BEGIN;

TRUNCATE bronze.products, bronze.products_inventory_locations;
\copy bronze.products (COLUMNS_OF_PRODUCTS) FROM FILE_OF_PRODUCTS WITH (FORMAT csv)
\copy bronze.products_inventory_locations (COLUMNS_OF_STOCK) FROM FILE_OF_STOCK WITH (FORMAT csv)

TRUNCATE silver.products, silver.stock_levels, silver.product_stock;

INSERT INTO silver.products
WITH

length_units (unit, cm) AS (
    VALUES ('cm', 1), ('mm', 0.1), ('m', 100), ('in', 2.54)
),

weight_units (unit, g) AS (
    VALUES ('g', 1), ('kg', 1000), ('oz', 28.349523125), ('lb', 453.59237)
),

one_row_per_sku AS (
    SELECT DISTINCT ON (elt.to_text(sku))
        *,
        elt.to_text(sku) AS product_sku,
        coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) AS is_active_product
    FROM bronze.products
    WHERE elt.to_text(sku) IS NOT NULL
    ORDER BY
        elt.to_text(sku),
        coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) DESC,
        products::text COLLATE "C"
),

measured AS (
    SELECT
        product_sku,
        elt.to_text(name) AS product_name,
        elt.to_text(product_type) AS product_type,
        trim_scale(nullif(greatest(elt.to_number(weight_value), 0), 0) * weight_units.g) AS weight_g,
        trim_scale(nullif(greatest(elt.to_number(dimensions_length), 0), 0) * length_units.cm) AS length_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_width), 0), 0) * length_units.cm) AS width_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_height), 0), 0) * length_units.cm) AS height_cm,
        is_active_product AS is_active
    FROM one_row_per_sku
    LEFT JOIN length_units ON length_units.unit = lower(elt.to_text(dimensions_unit) COLLATE "C")
    LEFT JOIN weight_units ON weight_units.unit = lower(elt.to_text(weight_unit) COLLATE "C")
)

SELECT *, length_cm IS NOT NULL AND width_cm IS NOT NULL AND height_cm IS NOT NULL
FROM measured;

INSERT INTO silver.stock_levels
WITH

links AS (
    SELECT inventory_locations AS link_id, min(elt.to_text(sku)) AS product_sku
    FROM bronze.products
    WHERE inventory_locations <> ''
    GROUP BY inventory_locations
),

typed AS (
    SELECT
        links.product_sku,
        links.link_id,
        coalesce(elt.to_text(warehouse_id), 'unknown') AS warehouse_id,
        elt.to_text(warehouse_name) AS warehouse_name,
        elt.to_text(warehouse_identifier) AS warehouse_identifier,
        coalesce(elt.to_number(quantity_available), 0) AS quantity_available,
        elt.to_number(quantity_on_hand) AS quantity_on_hand_received,
        coalesce(elt.to_number(quarantined_quantity), 0) AS quarantined_quantity,
        coalesce(elt.to_number(quantity_unavailable), 0) AS quantity_unavailable
    FROM bronze.products_inventory_locations
    INNER JOIN links ON links.link_id = json_parentid
    WHERE links.product_sku IS NOT NULL
),

ranked AS (
    SELECT
        *,
        count(*) OVER (PARTITION BY product_sku, warehouse_id) AS row_count,
        row_number() OVER (
            PARTITION BY link_id, warehouse_id
            ORDER BY
                quantity_available DESC,
                quantity_on_hand_received DESC NULLS LAST,
                quarantined_quantity DESC,
                quantity_unavailable DESC,
                warehouse_name COLLATE "C",
                warehouse_identifier COLLATE "C"
        ) AS place
    FROM typed
)

SELECT
    product_sku,
    warehouse_id,
    min(warehouse_name COLLATE "C"),
    min(warehouse_identifier COLLATE "C"),
    sum(quantity_available),
    sum(least(coalesce(quantity_on_hand_received, 0), quantity_available)),
    sum(quantity_on_hand_received),
    sum(quarantined_quantity),
    sum(quantity_unavailable),
    max(row_count)
FROM ranked
WHERE place = 1 OR warehouse_id = 'unknown'
GROUP BY product_sku, warehouse_id;

INSERT INTO silver.product_stock
SELECT
    products.product_sku,
    coalesce(sum(quantity_available), 0),
    coalesce(sum(quantity_on_hand), 0),
    coalesce(sum(quarantined_quantity), 0),
    coalesce(sum(quantity_unavailable), 0),
    count(warehouse_id)
FROM silver.products
LEFT JOIN silver.stock_levels ON stock_levels.product_sku = products.product_sku
GROUP BY products.product_sku;

COMMIT;
