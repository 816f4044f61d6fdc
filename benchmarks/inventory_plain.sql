-- What one would write without this project to the same end: empty each table, fill it from one query.
-- inventory_sql.py and daily_load.py run it with psql -f and compare times and every row.
-- :day is the day that is loaded; histories are rows that hold from valid_from up to valid_to.

TRUNCATE silver.products;

INSERT INTO silver.products
SELECT
    product_sku,
    product_name,
    product_type,
    weight_g,
    length_cm,
    width_cm,
    height_cm,
    is_active,
    length_cm IS NOT NULL AND width_cm IS NOT NULL AND height_cm IS NOT NULL
FROM (
    SELECT DISTINCT ON (elt.to_text(sku))
        elt.to_text(sku) AS product_sku,
        elt.to_text(regexp_replace(name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS product_name,
        elt.to_text(regexp_replace(product_type, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS product_type,
        trim_scale(nullif(greatest(elt.to_number(weight_value), 0), 0) * weight_units.g) AS weight_g,
        trim_scale(nullif(greatest(elt.to_number(dimensions_length), 0), 0) * length_units.cm) AS length_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_width), 0), 0) * length_units.cm) AS width_cm,
        trim_scale(nullif(greatest(elt.to_number(dimensions_height), 0), 0) * length_units.cm) AS height_cm,
        coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) AS is_active
    FROM bronze.products
    LEFT JOIN (VALUES ('cm', 1), ('mm', 0.1), ('m', 100), ('in', 2.54)) AS length_units (unit, cm)
        ON length_units.unit = lower(elt.to_text(dimensions_unit) COLLATE "C")
    LEFT JOIN (VALUES ('g', 1), ('kg', 1000), ('oz', 28.349523125), ('lb', 453.59237)) AS weight_units (unit, g)
        ON weight_units.unit = lower(elt.to_text(weight_unit) COLLATE "C")
    WHERE elt.to_text(sku) IS NOT NULL
    ORDER BY
        elt.to_text(sku),
        coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) DESC,
        products::text COLLATE "C"
) AS measured;

ANALYZE silver.products;

-- Every stock row with its product and its place among the rows of the same link and warehouse.
CREATE TEMP TABLE stock_rows AS
SELECT
    links.product_sku,
    coalesce(elt.to_text(warehouse_id), 'unknown') AS warehouse,
    elt.to_text(regexp_replace(warehouse_name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) AS warehouse_name,
    elt.to_text(
        regexp_replace(warehouse_identifier, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')
    ) AS warehouse_identifier,
    json_parentid,
    warehouse_id,
    quantity_available,
    quantity_on_hand,
    quarantined_quantity,
    quantity_unavailable,
    elt.to_number(quantity_available) AS available,
    elt.to_number(quantity_on_hand) AS on_hand,
    elt.to_number(quarantined_quantity) AS quarantined,
    elt.to_number(quantity_unavailable) AS unavailable,
    row_number() OVER (
        PARTITION BY json_parentid, coalesce(elt.to_text(warehouse_id), 'unknown')
        ORDER BY
            coalesce(elt.to_number(quantity_available), 0) DESC,
            elt.to_number(quantity_on_hand) DESC NULLS LAST,
            coalesce(elt.to_number(quarantined_quantity), 0) DESC,
            coalesce(elt.to_number(quantity_unavailable), 0) DESC,
            elt.to_text(regexp_replace(warehouse_name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) COLLATE "C",
            elt.to_text(
                regexp_replace(warehouse_identifier, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')
            ) COLLATE "C",
            stock::text COLLATE "C"
    ) AS place
FROM bronze.products_inventory_locations AS stock
LEFT JOIN (
    SELECT inventory_locations AS link_id, min(elt.to_text(sku)) AS product_sku
    FROM bronze.products
    WHERE inventory_locations <> ''
    GROUP BY inventory_locations
) AS links ON links.link_id = json_parentid;

ANALYZE stock_rows;

TRUNCATE silver.stock_levels;

INSERT INTO silver.stock_levels
SELECT
    product_sku,
    warehouse,
    min(warehouse_name COLLATE "C") FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    min(warehouse_identifier COLLATE "C") FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    sum(coalesce(available, 0)) FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    sum(least(coalesce(on_hand, 0), coalesce(available, 0))) FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    sum(on_hand) FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    sum(coalesce(quarantined, 0)) FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    sum(coalesce(unavailable, 0)) FILTER (WHERE place = 1 OR warehouse = 'unknown'),
    count(*)
FROM stock_rows
WHERE product_sku IS NOT NULL
GROUP BY product_sku, warehouse;

ANALYZE silver.stock_levels;

TRUNCATE silver.product_stock;

INSERT INTO silver.product_stock
SELECT
    products.product_sku,
    coalesce(sum(quantity_available), 0),
    coalesce(sum(quantity_on_hand), 0),
    coalesce(sum(quarantined_quantity), 0),
    coalesce(sum(quantity_unavailable), 0),
    count(stock_levels.product_sku)
FROM silver.products
LEFT JOIN silver.stock_levels ON stock_levels.product_sku = products.product_sku
GROUP BY products.product_sku;

ANALYZE silver.product_stock;

TRUNCATE silver.stock_without_product;

INSERT INTO silver.stock_without_product
SELECT
    warehouse,
    min(warehouse_name COLLATE "C"),
    min(warehouse_identifier COLLATE "C"),
    sum(coalesce(available, 0)),
    sum(least(coalesce(on_hand, 0), coalesce(available, 0))),
    sum(coalesce(quarantined, 0)),
    sum(coalesce(unavailable, 0)),
    count(*)
FROM stock_rows
WHERE product_sku IS NULL
GROUP BY warehouse;

INSERT INTO silver.stock_thresholds (product_type, low_stock_threshold, lead_time_days, cover_days)
VALUES ('*', 5, 14, 28)
ON CONFLICT DO NOTHING;

TRUNCATE silver.data_quality_issues;

INSERT INTO silver.data_quality_issues
WITH

product_rows AS (
    SELECT
        *,
        elt.to_text(sku) AS product_sku,
        products::text AS row_text,
        row_number() OVER (
            PARTITION BY elt.to_text(sku)
            ORDER BY coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) DESC, products::text COLLATE "C"
        ) AS place
    FROM bronze.products
),

used_products AS (
    SELECT
        product_rows.*, silver.product_name, silver.product_type AS type_used, silver.is_active AS active,
        silver.weight_g, silver.length_cm, silver.width_cm, silver.height_cm
    FROM product_rows
    INNER JOIN silver.products AS silver ON silver.product_sku = product_rows.product_sku
    WHERE place = 1
),

looks AS (
    SELECT
        product_sku,
        lower(
            regexp_replace(
                normalize(product_sku, nfkd),
                '[' || elt.invisible() || '\u0001-\u0020\u007f-\u00a0\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e0fff]',
                '', 'g'
            )
        ) AS look
    FROM silver.products
),

used_quantities AS (
    SELECT product_sku || ' / ' || warehouse AS row_key, quantities.*
    FROM stock_rows
    CROSS JOIN LATERAL (
        VALUES
            ('quantity_available', quantity_available, available, coalesce(available, 0)),
            ('quantity_on_hand', quantity_on_hand, on_hand, least(coalesce(on_hand, 0), coalesce(available, 0))),
            ('quarantined_quantity', quarantined_quantity, quarantined, coalesce(quarantined, 0)),
            ('quantity_unavailable', quantity_unavailable, unavailable, coalesce(unavailable, 0))
    ) AS quantities (column_name, value_received, number_received, number_used)
    WHERE product_sku IS NOT NULL AND (place = 1 OR warehouse = 'unknown')
        AND (number_received >= 0) IS NOT TRUE
),

issues (rule, severity, job, row_key, column_name, value_received, value_used, explanation, pieces) AS (
    SELECT
        'missing_sku', 'error', 'products',
        coalesce(elt.to_text(regexp_replace(name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')), 'no name'),
        'sku', sku, NULL,
        'A product without SKU is left out.', NULL::numeric
    FROM product_rows WHERE product_sku IS NULL
    UNION ALL
    SELECT
        'duplicate_sku', 'error', 'products', product_sku, 'sku', row_text, NULL,
        'Another row of this SKU is used: an active one, else the smallest text.', NULL
    FROM product_rows WHERE product_sku IS NOT NULL AND place > 1
    UNION ALL
    SELECT
        'similar_sku', 'warning', 'products', looks.product_sku, 'sku',
        CASE WHEN looks.product_sku = alike.first_sku THEN alike.last_sku ELSE alike.first_sku END, NULL,
        'Another SKU differs only by case, by Unicode form or by characters that nobody sees; both are kept.', NULL
    FROM looks
    INNER JOIN (
        SELECT look, min(product_sku COLLATE "C") AS first_sku, max(product_sku COLLATE "C") AS last_sku
        FROM looks GROUP BY look HAVING count(*) > 1
    ) AS alike USING (look)
    UNION ALL
    SELECT
        'is_active_is_neither', 'warning', 'products', product_sku, 'is_active', is_active, active::text,
        'Neither 1 nor empty; only true counts as active.', NULL
    FROM used_products WHERE elt.to_text(is_active) <> '1'
    UNION ALL
    SELECT
        'line_break_in_product', 'warning', 'products', product_sku, texts.column_name, texts.value_received,
        texts.value_used, 'A line break in a name or type; a blank is used for it.', NULL
    FROM used_products
    CROSS JOIN LATERAL (
        VALUES ('name', name, product_name), ('product_type', product_type, type_used)
    ) AS texts (column_name, value_received, value_used)
    WHERE elt.to_text(texts.value_received) ~ '[\n\v\f\r\u0085\u2028\u2029]'
    UNION ALL
    SELECT
        'invalid_measure', 'warning', 'products', product_sku, measures.column_name, measures.value_received, NULL,
        'No number above 0 with at most 18 digits before the point, so it is unknown.', NULL
    FROM used_products
    CROSS JOIN LATERAL (
        VALUES
            ('weight_value', weight_value), ('dimensions_length', dimensions_length),
            ('dimensions_width', dimensions_width), ('dimensions_height', dimensions_height)
    ) AS measures (column_name, value_received)
    WHERE elt.to_text(measures.value_received) IS NOT NULL
        AND NOT coalesce(elt.to_number(measures.value_received) > 0, false)
    UNION ALL
    SELECT
        'unknown_unit', 'warning', 'products', product_sku, 'weight_unit', weight_unit, NULL,
        'Not one of in, cm, mm, m or oz, lb, g, kg, so the measure is unknown.', NULL
    FROM used_products WHERE weight_g IS NULL AND elt.to_number(weight_value) > 0
    UNION ALL
    SELECT
        'unknown_unit', 'warning', 'products', product_sku, 'dimensions_unit', dimensions_unit, NULL,
        'Not one of in, cm, mm, m or oz, lb, g, kg, so the measure is unknown.', NULL
    FROM used_products
    WHERE coalesce(length_cm, width_cm, height_cm) IS NULL
        AND greatest(
            elt.to_number(dimensions_length), elt.to_number(dimensions_width), elt.to_number(dimensions_height)
        ) > 0
    UNION ALL
    SELECT
        'missing_weight', 'info', 'products', product_sku, 'weight_value', weight_value, NULL,
        'The weight is unknown.', NULL
    FROM used_products WHERE weight_g IS NULL
    UNION ALL
    SELECT
        'missing_dimensions', 'info', 'products', product_sku,
        'dimensions_length, dimensions_width, dimensions_height',
        concat(dimensions_length, ' x ', dimensions_width, ' x ', dimensions_height, ' ', dimensions_unit), NULL,
        'Length, width or height is unknown.', NULL
    FROM used_products WHERE length_cm IS NULL OR width_cm IS NULL OR height_cm IS NULL
    UNION ALL
    SELECT
        'product_without_stock', 'info', 'products', product_sku, 'inventory_locations', NULL, NULL,
        'No warehouse has a row of this product; its stock is 0.', NULL
    FROM silver.products
    WHERE NOT EXISTS (SELECT FROM silver.stock_levels WHERE stock_levels.product_sku = products.product_sku)
    UNION ALL
    SELECT
        'stock_without_product', 'error', 'products_inventory_locations',
        concat_ws(' / ', coalesce(elt.to_text(json_parentid), 'no link'), warehouse), 'quantity_available',
        quantity_available, NULL, 'No product with a SKU has this link, so the row is left out.', coalesce(available, 0)
    FROM stock_rows WHERE product_sku IS NULL
    UNION ALL
    SELECT
        'duplicate_stock_row', 'error', 'products_inventory_locations', product_sku || ' / ' || warehouse,
        'quantity_available', quantity_available, NULL,
        'The link names this warehouse twice; the row with the highest quantities is used.', coalesce(available, 0)
    FROM stock_rows WHERE product_sku IS NOT NULL AND place > 1 AND warehouse <> 'unknown'
    UNION ALL
    SELECT
        'missing_warehouse', 'warning', 'products_inventory_locations', product_sku || ' / ' || warehouse,
        'warehouse_id', warehouse_id, warehouse, 'Counts as stock of the warehouse unknown.', coalesce(available, 0)
    FROM stock_rows WHERE product_sku IS NOT NULL AND elt.to_text(warehouse_id) IS NULL
    UNION ALL
    SELECT
        'quantity_is_no_number', 'error', 'products_inventory_locations', row_key, column_name, value_received,
        number_used::text, 'No number, or one of 19 or more digits before the point; counts as 0.', NULL
    FROM used_quantities WHERE number_received IS NULL
    UNION ALL
    SELECT
        'negative_quantity', 'warning', 'products_inventory_locations', row_key, column_name, value_received,
        number_used::text, 'Used as it is.', -number_received
    FROM used_quantities WHERE number_received < 0
    UNION ALL
    SELECT
        'on_hand_above_available', 'warning', 'products_inventory_locations', product_sku || ' / ' || warehouse_id,
        'quantity_on_hand', trim_scale(quantity_on_hand_received)::text, trim_scale(quantity_on_hand)::text,
        'More on hand than available; set to quantity_available.', quantity_on_hand_received - quantity_on_hand
    FROM silver.stock_levels WHERE quantity_on_hand_received > quantity_on_hand
    UNION ALL
    SELECT DISTINCT
        'line_break_in_warehouse', 'warning', 'products_inventory_locations',
        coalesce(elt.to_text(warehouse_id), 'unknown'), texts.column_name, texts.value_received,
        elt.to_text(regexp_replace(texts.value_received, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')),
        'A line break in the name or code of a warehouse; a blank is used for it.', NULL::numeric
    FROM bronze.products_inventory_locations
    CROSS JOIN LATERAL (
        VALUES ('warehouse_name', warehouse_name), ('warehouse_identifier', warehouse_identifier)
    ) AS texts (column_name, value_received)
    WHERE concat(warehouse_name, warehouse_identifier) ~ '[\n\v\f\r\u0085\u2028\u2029]'
        AND elt.to_text(texts.value_received) ~ '[\n\v\f\r\u0085\u2028\u2029]'
)

SELECT
    rule,
    left(row_key, 200),
    column_name,
    row_number() OVER (
        PARTITION BY rule, left(row_key, 200), column_name
        ORDER BY value_received COLLATE "C", value_used COLLATE "C", pieces
    ),
    severity,
    job,
    value_received,
    value_used,
    explanation,
    coalesce(issues.pieces, product_stock.total_stock)
FROM issues
LEFT JOIN silver.product_stock ON product_sku = row_key AND job = 'products' AND rule <> 'missing_sku';

INSERT INTO silver.warehouses (warehouse_id, warehouse_key, warehouse_name, is_loaded)
VALUES ('unknown', 0, 'Unknown warehouse', false)
ON CONFLICT DO NOTHING;

UPDATE silver.warehouses SET is_loaded = false;

INSERT INTO silver.warehouses (warehouse_id, warehouse_name, warehouse_identifier, is_loaded)
SELECT
    warehouse,
    CASE WHEN warehouse = 'unknown' THEN 'Unknown warehouse' ELSE min(warehouse_name COLLATE "C") END,
    CASE WHEN warehouse <> 'unknown' THEN min(warehouse_identifier COLLATE "C") END,
    true
FROM stock_rows
GROUP BY warehouse
ON CONFLICT (warehouse_id) DO UPDATE
    SET
        warehouse_name = excluded.warehouse_name,
        warehouse_identifier = excluded.warehouse_identifier,
        is_loaded = true;

UPDATE silver.loaded_days SET is_current = false;

INSERT INTO silver.loaded_days
SELECT
    :'day',
    true,
    (SELECT count(*) FROM silver.products),
    count(*),
    sum(quantity_available)
FROM (
    SELECT quantity_available FROM silver.stock_levels
    UNION ALL
    SELECT quantity_available FROM silver.stock_without_product
) AS stock;

-- Histories: close what no longer holds, open what is new.
INSERT INTO silver.product_history (
    product_sku, valid_from, valid_to, product_key, product_name, is_active, has_dimensions
)
VALUES ('', '-infinity', 'infinity', 0, 'Unknown product', false, false)
ON CONFLICT DO NOTHING;

UPDATE silver.product_history AS history
SET valid_to = :'day'
WHERE valid_to = 'infinity'
    AND product_key <> 0
    AND NOT EXISTS (
        SELECT
        FROM silver.products
        WHERE products.product_sku = history.product_sku
            AND (
                products.product_name, products.product_type, products.weight_g, products.length_cm,
                products.width_cm, products.height_cm, products.is_active, products.has_dimensions
            ) IS NOT DISTINCT FROM (
                history.product_name, history.product_type, history.weight_g, history.length_cm,
                history.width_cm, history.height_cm, history.is_active, history.has_dimensions
            )
    );

INSERT INTO silver.product_history (
    product_sku, valid_from, valid_to, product_name, product_type, weight_g, length_cm, width_cm, height_cm, is_active,
    has_dimensions
)
SELECT
    product_sku, :'day', 'infinity', product_name, product_type, weight_g, length_cm, width_cm, height_cm, is_active,
    has_dimensions
FROM silver.products
WHERE NOT EXISTS (
    SELECT
    FROM silver.product_history AS history
    WHERE history.product_sku = products.product_sku AND history.valid_to = 'infinity'
);

CREATE TEMP TABLE stock_today AS
SELECT product_sku, warehouse_id, quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable
FROM silver.stock_levels
UNION ALL
SELECT '', warehouse_id, quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable
FROM silver.stock_without_product;

ANALYZE stock_today;

UPDATE silver.stock_history AS history
SET valid_to = :'day'
WHERE valid_to = 'infinity'
    AND NOT EXISTS (
        SELECT
        FROM stock_today
        WHERE stock_today.product_sku = history.product_sku
            AND stock_today.warehouse_id = history.warehouse_id
            AND stock_today.quantity_available = history.quantity_available
            AND stock_today.quantity_on_hand = history.quantity_on_hand
            AND stock_today.quarantined_quantity = history.quarantined_quantity
            AND stock_today.quantity_unavailable = history.quantity_unavailable
    );

INSERT INTO silver.stock_history
SELECT
    product_sku, warehouse_id, :'day', 'infinity', quantity_available, quantity_on_hand, quarantined_quantity,
    quantity_unavailable
FROM stock_today
WHERE NOT EXISTS (
    SELECT
    FROM silver.stock_history AS history
    WHERE history.product_sku = stock_today.product_sku
        AND history.warehouse_id = stock_today.warehouse_id
        AND history.valid_to = 'infinity'
);

CREATE TEMP TABLE product_stock_today AS
SELECT
    products.product_sku,
    stock.total_stock,
    CASE
        WHEN stock.total_stock <= 0 THEN 'Out of Stock'
        WHEN stock.total_stock <= coalesce(of_type.low_stock_threshold, of_all.low_stock_threshold) THEN 'Low Stock'
        ELSE 'In Stock'
    END AS stock_status
FROM silver.products
INNER JOIN silver.product_stock AS stock ON stock.product_sku = products.product_sku
LEFT JOIN silver.stock_thresholds AS of_type ON of_type.product_type = products.product_type
LEFT JOIN silver.stock_thresholds AS of_all ON of_all.product_type = '*';

UPDATE silver.product_stock_history AS history
SET valid_to = :'day'
WHERE valid_to = 'infinity'
    AND NOT EXISTS (
        SELECT
        FROM product_stock_today AS today
        WHERE today.product_sku = history.product_sku
            AND today.total_stock = history.total_stock
            AND today.stock_status = history.stock_status
    );

INSERT INTO silver.product_stock_history
SELECT product_sku, :'day', 'infinity', total_stock, stock_status
FROM product_stock_today AS today
WHERE NOT EXISTS (
    SELECT
    FROM silver.product_stock_history AS history
    WHERE history.product_sku = today.product_sku AND history.valid_to = 'infinity'
);

INSERT INTO silver.data_quality_counts
SELECT
    :'day',
    rule,
    severity,
    job,
    sum(issue_count),
    CASE job
        WHEN 'products' THEN (SELECT count(*) FROM bronze.products)
        ELSE (SELECT count(*) FROM bronze.products_inventory_locations)
    END,
    min(row_key COLLATE "C"),
    sum(pieces)
FROM (
    SELECT
        rule, severity, job, row_key, count(*) AS issue_count,
        CASE WHEN job = 'products' THEN max(pieces) ELSE sum(pieces) END AS pieces
    FROM silver.data_quality_issues
    GROUP BY rule, severity, job, row_key
) AS by_key
GROUP BY rule, severity, job;
