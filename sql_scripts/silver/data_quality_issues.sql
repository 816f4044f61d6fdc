-- silver.data_quality_issues: one row per thing that silver could not hold, changed, or misses.
-- Reads bronze.products, bronze.products_inventory_locations, silver.products, silver.stock_levels,
-- silver.product_stock.
-- A row that silver cannot hold is listed once; what is wrong with its values no longer matters then.

CREATE TABLE IF NOT EXISTS silver.data_quality_issues (
    rule           text   NOT NULL,
    row_key        text   NOT NULL,
    column_name    text   NOT NULL,
    occurrence     bigint NOT NULL,
    severity       text   NOT NULL CHECK (severity IN ('error', 'warning', 'info')),
    job            text   NOT NULL,
    value_received text,
    value_used     text,
    explanation    text   NOT NULL,
    PRIMARY KEY (rule, row_key, column_name, occurrence)
);

SELECT elt.add_column('silver.data_quality_issues', 'pieces', 'numeric');

COMMENT ON TABLE silver.data_quality_issues IS
    'One row per thing of the current load that silver could not hold, changed, or misses.';
COMMENT ON COLUMN silver.data_quality_issues.rule IS 'What is wrong, in one word.';
COMMENT ON COLUMN silver.data_quality_issues.row_key IS
    'Which row: SKU; SKU / warehouse; link / warehouse for stock without product; name for a product without SKU; a warehouse for its name.';
COMMENT ON COLUMN silver.data_quality_issues.column_name IS 'Column of the bronze table that job loads.';
COMMENT ON COLUMN silver.data_quality_issues.occurrence IS 'Counts the issues of one rule, row and column from 1.';
COMMENT ON COLUMN silver.data_quality_issues.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: something is missing that may be.';
COMMENT ON COLUMN silver.data_quality_issues.job IS 'The job that loaded the row.';
COMMENT ON COLUMN silver.data_quality_issues.value_received IS 'The value, or for a duplicate product the row, as received.';
COMMENT ON COLUMN silver.data_quality_issues.value_used IS 'What silver holds in its place; NULL: nothing.';
COMMENT ON COLUMN silver.data_quality_issues.explanation IS 'What the rule means and what was done.';
COMMENT ON COLUMN silver.data_quality_issues.pieces IS
    'Pieces that it concerns: the total stock of the product; quantity_available of a stock row; what was taken off for on_hand_above_available, or is below 0. NULL: not known.';

DROP TABLE IF EXISTS pg_temp.data_quality_issues_now;
CREATE TEMP TABLE data_quality_issues_now AS
WITH

rules (rule, severity, job, explanation) AS (
    VALUES
        ('missing_sku', 'error', 'products', 'A product without SKU is left out.'),
        (
            'duplicate_sku', 'error', 'products',
            'Another row of this SKU is used: an active one, else the smallest text.'
        ),
        ('is_active_is_neither', 'warning', 'products', 'Neither 1 nor empty; only true counts as active.'),
        ('line_break_in_product', 'warning', 'products', 'A line break in a name or type; a blank is used for it.'),
        ('invalid_measure', 'warning', 'products', 'No number above 0, so it is unknown.'),
        (
            'unknown_unit', 'warning', 'products',
            'Not one of in, cm, mm, m or oz, lb, g, kg, so the measure is unknown.'
        ),
        ('missing_weight', 'info', 'products', 'The weight is unknown.'),
        ('missing_dimensions', 'info', 'products', 'Length, width or height is unknown.'),
        ('product_without_stock', 'info', 'products', 'No warehouse has a row of this product; its stock is 0.'),
        (
            'stock_without_product', 'error', 'products_inventory_locations',
            'No product with a SKU has this link, so the row is left out.'
        ),
        (
            'duplicate_stock_row', 'error', 'products_inventory_locations',
            'The link names this warehouse twice; the row with the highest quantities is used.'
        ),
        ('quantity_is_no_number', 'error', 'products_inventory_locations', 'Counts as 0.'),
        ('missing_warehouse', 'warning', 'products_inventory_locations', 'Counts as stock of the warehouse unknown.'),
        ('negative_quantity', 'warning', 'products_inventory_locations', 'Used as it is.'),
        (
            'on_hand_above_available', 'warning', 'products_inventory_locations',
            'More on hand than available; set to quantity_available.'
        ),
        (
            'line_break_in_warehouse', 'warning', 'products_inventory_locations',
            'A line break in the name or code of a warehouse; a blank is used for it.'
        )
),

-- Products: rows without a SKU, rows that share one, and those of which something is missing or that are not active;
-- ranked as in silver/products.sql.
-- MATERIALIZED, here and below, so that few of many rows are left when numbers are parsed.
skus_of_several_rows AS (
    SELECT elt.to_text(sku) AS product_sku
    FROM bronze.products
    GROUP BY elt.to_text(sku)
    HAVING count(*) > 1
),

doubtful_products AS MATERIALIZED (
    SELECT
        product.*,
        product::text AS row_text,
        elt.to_text(product.sku) AS product_sku,
        used.product_sku AS sku_used,
        used.is_active AS is_active_used,
        used.product_name AS name_used,
        used.product_type AS product_type_used,
        used.has_dimensions,
        used.weight_g,
        coalesce(used.length_cm, used.width_cm, used.height_cm) AS any_dimension_cm
    FROM bronze.products AS product
    LEFT JOIN silver.products AS used ON used.product_sku = elt.to_text(product.sku)
    WHERE elt.to_text(product.sku) IS NULL
        OR elt.to_text(product.sku) IN (SELECT product_sku FROM skus_of_several_rows)
        OR used.weight_g IS NULL
        OR NOT used.has_dimensions
        OR elt.to_text(product.is_active) <> '1'
        OR concat(product.name, product.product_type) ~ '[\n\v\f\r\u0085\u2028\u2029]'
),

ranked_products AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY product_sku
            ORDER BY
                coalesce(lower(elt.to_text(is_active)) IN ('1', 'true'), false) DESC,
                row_text COLLATE "C"
        ) AS place
    FROM doubtful_products
),

used_products AS (
    SELECT * FROM ranked_products WHERE sku_used IS NOT NULL AND place = 1
),

-- Stock: only rows that silver.stock_levels does not hold exactly as received, ranked as in silver/stock_levels.sql.
-- Few digits and nothing else are a number that is not negative, which is quickly seen; other quantities are parsed to
-- tell.  Written as 1 = CASE .., of which PostgreSQL expects few rows, and so looks for them with several processes.
links AS (
    SELECT
        inventory_locations AS link_id,
        min(elt.to_text(sku)) AS product_sku
    FROM bronze.products
    WHERE inventory_locations <> ''
    GROUP BY inventory_locations
),

named_by_several AS (
    SELECT product_sku, warehouse_id FROM silver.stock_levels WHERE bronze_row_count > 1
),

doubtful_stock AS MATERIALIZED (
    SELECT
        stock.*,
        stock::text AS row_text,
        links.product_sku,
        coalesce(elt.to_text(stock.warehouse_id), 'unknown') AS warehouse
    FROM bronze.products_inventory_locations AS stock
    LEFT JOIN links ON links.link_id = json_parentid
    LEFT JOIN named_by_several
        ON named_by_several.product_sku = links.product_sku
        AND named_by_several.warehouse_id = coalesce(elt.to_text(stock.warehouse_id), 'unknown')
    WHERE 1 = CASE
        WHEN links.product_sku IS NULL OR named_by_several.product_sku IS NOT NULL THEN 1
        WHEN elt.to_text(stock.warehouse_id) IS NULL THEN 1
        WHEN '' NOT IN (quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable)
            AND length(quantity_available || quantity_on_hand || quarantined_quantity || quantity_unavailable) <= 18
            AND translate(
                quantity_available || quantity_on_hand || quarantined_quantity || quantity_unavailable,
                '0123456789',
                ''
            ) = ''
            THEN 0
        WHEN elt.to_number(quantity_available) >= 0
            AND elt.to_number(quantity_on_hand) >= 0
            AND elt.to_number(quarantined_quantity) >= 0
            AND elt.to_number(quantity_unavailable) >= 0
            THEN 0
        ELSE 1
    END
),

typed_stock AS (
    SELECT
        *,
        elt.to_number(quantity_available) AS available,
        elt.to_number(quantity_on_hand) AS on_hand,
        elt.to_number(quarantined_quantity) AS quarantined,
        elt.to_number(quantity_unavailable) AS unavailable
    FROM doubtful_stock
    OFFSET 0  -- so that each number is parsed once
),

ranked_stock AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY json_parentid, warehouse
            ORDER BY
                coalesce(available, 0) DESC,
                on_hand DESC NULLS LAST,
                coalesce(quarantined, 0) DESC,
                coalesce(unavailable, 0) DESC,
                elt.to_text(regexp_replace(warehouse_name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')) COLLATE "C",
                elt.to_text(
                    regexp_replace(warehouse_identifier, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')
                ) COLLATE "C",
                row_text COLLATE "C"
        ) AS place
    FROM typed_stock
),

used_stock AS (
    SELECT *, product_sku || ' / ' || warehouse AS row_key
    FROM ranked_stock
    WHERE product_sku IS NOT NULL AND (place = 1 OR warehouse = 'unknown')
),

used_quantities AS (
    SELECT row_key, quantities.*
    FROM used_stock
    CROSS JOIN LATERAL (
        VALUES
            ('quantity_available', quantity_available, available, coalesce(available, 0)),
            ('quantity_on_hand', quantity_on_hand, on_hand, least(coalesce(on_hand, 0), coalesce(available, 0))),
            ('quarantined_quantity', quarantined_quantity, quarantined, coalesce(quarantined, 0)),
            ('quantity_unavailable', quantity_unavailable, unavailable, coalesce(unavailable, 0))
    ) AS quantities (column_name, value_received, number_received, number_used)
    WHERE (available >= 0 AND on_hand >= 0 AND quarantined >= 0 AND unavailable >= 0) IS NOT TRUE
),

-- A name that a whole warehouse has is listed once, and not with each of its rows.
warehouses AS (
    SELECT DISTINCT warehouse_id, warehouse_name, warehouse_identifier FROM bronze.products_inventory_locations
),

texts_of_warehouses AS (
    SELECT DISTINCT coalesce(elt.to_text(warehouse_id), 'unknown') AS warehouse, texts.*
    FROM warehouses
    CROSS JOIN LATERAL (
        VALUES ('warehouse_name', warehouse_name), ('warehouse_identifier', warehouse_identifier)
    ) AS texts (column_name, value_received)
),

-- Without pieces: the product's stock, or not known.
issues (rule, row_key, column_name, value_received, value_used, pieces) AS (
    SELECT
        'missing_sku',
        coalesce(elt.to_text(regexp_replace(name, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')), 'no name'),
        'sku',
        sku,
        NULL,
        NULL::numeric
    FROM ranked_products
    WHERE product_sku IS NULL

    UNION ALL
    SELECT 'duplicate_sku', product_sku, 'sku', row_text, NULL, NULL
    FROM ranked_products
    WHERE product_sku IS NOT NULL AND place > 1

    UNION ALL
    SELECT 'is_active_is_neither', product_sku, 'is_active', is_active, is_active_used::text, NULL
    FROM used_products
    WHERE elt.to_text(is_active) <> '1'

    UNION ALL
    SELECT 'line_break_in_product', product_sku, texts.column_name, texts.value_received, texts.value_used, NULL
    FROM used_products
    CROSS JOIN LATERAL (
        VALUES ('name', name, name_used), ('product_type', product_type, product_type_used)
    ) AS texts (column_name, value_received, value_used)
    WHERE elt.to_text(texts.value_received) ~ '[\n\v\f\r\u0085\u2028\u2029]'

    UNION ALL
    SELECT 'invalid_measure', product_sku, measures.column_name, measures.value_received, NULL, NULL
    FROM used_products
    CROSS JOIN LATERAL (
        VALUES
            ('weight_value', weight_value),
            ('dimensions_length', dimensions_length),
            ('dimensions_width', dimensions_width),
            ('dimensions_height', dimensions_height)
    ) AS measures (column_name, value_received)
    WHERE elt.to_text(measures.value_received) IS NOT NULL
        AND NOT coalesce(elt.to_number(measures.value_received) > 0, false)

    UNION ALL
    SELECT 'unknown_unit', product_sku, 'weight_unit', weight_unit, NULL, NULL
    FROM used_products
    WHERE weight_g IS NULL AND elt.to_number(weight_value) > 0

    UNION ALL
    SELECT 'unknown_unit', product_sku, 'dimensions_unit', dimensions_unit, NULL, NULL
    FROM used_products
    WHERE any_dimension_cm IS NULL
        AND greatest(
            elt.to_number(dimensions_length), elt.to_number(dimensions_width), elt.to_number(dimensions_height)
        ) > 0

    UNION ALL
    SELECT 'missing_weight', product_sku, 'weight_value', weight_value, NULL, NULL
    FROM used_products
    WHERE weight_g IS NULL

    UNION ALL
    SELECT
        'missing_dimensions',
        product_sku,
        'dimensions_length, dimensions_width, dimensions_height',
        concat(dimensions_length, ' x ', dimensions_width, ' x ', dimensions_height, ' ', dimensions_unit),
        NULL,
        NULL
    FROM used_products
    WHERE NOT has_dimensions

    UNION ALL
    SELECT 'product_without_stock', product_sku, 'inventory_locations', NULL, NULL, NULL
    FROM silver.products
    WHERE NOT EXISTS (SELECT FROM silver.stock_levels WHERE stock_levels.product_sku = products.product_sku)

    UNION ALL
    SELECT
        'stock_without_product',
        concat_ws(' / ', coalesce(elt.to_text(json_parentid), 'no link'), warehouse),
        'quantity_available',
        quantity_available,
        NULL,
        coalesce(available, 0)
    FROM ranked_stock
    WHERE product_sku IS NULL

    UNION ALL
    SELECT
        'duplicate_stock_row',
        product_sku || ' / ' || warehouse,
        'quantity_available',
        quantity_available,
        NULL,
        coalesce(available, 0)
    FROM ranked_stock
    WHERE product_sku IS NOT NULL AND place > 1 AND warehouse <> 'unknown'

    UNION ALL
    SELECT 'missing_warehouse', row_key, 'warehouse_id', warehouse_id, warehouse, coalesce(available, 0)
    FROM used_stock
    WHERE elt.to_text(warehouse_id) IS NULL

    UNION ALL
    SELECT 'quantity_is_no_number', row_key, column_name, value_received, number_used::text, NULL
    FROM used_quantities
    WHERE number_received IS NULL

    UNION ALL
    SELECT 'negative_quantity', row_key, column_name, value_received, number_used::text, -number_received
    FROM used_quantities
    WHERE number_received < 0

    UNION ALL
    SELECT
        'on_hand_above_available',
        product_sku || ' / ' || warehouse_id,
        'quantity_on_hand',
        trim_scale(quantity_on_hand_received)::text,
        trim_scale(quantity_on_hand)::text,
        quantity_on_hand_received - quantity_on_hand
    FROM silver.stock_levels
    WHERE quantity_on_hand_received > quantity_on_hand

    UNION ALL
    SELECT
        'line_break_in_warehouse',
        warehouse,
        column_name,
        value_received,
        elt.to_text(regexp_replace(value_received, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g')),
        NULL
    FROM texts_of_warehouses
    WHERE elt.to_text(value_received) ~ '[\n\v\f\r\u0085\u2028\u2029]'
)

SELECT
    rules.rule,
    left(issues.row_key, 200) AS row_key,
    issues.column_name,
    row_number() OVER (
        PARTITION BY rules.rule, left(issues.row_key, 200), issues.column_name
        ORDER BY issues.value_received COLLATE "C", issues.value_used COLLATE "C", issues.pieces
    ) AS occurrence,
    rules.severity,
    rules.job,
    issues.value_received,
    issues.value_used,
    rules.explanation,
    coalesce(issues.pieces, product_stock.total_stock) AS pieces
FROM issues
INNER JOIN rules ON rules.rule = issues.rule
LEFT JOIN silver.product_stock
    ON product_stock.product_sku = issues.row_key
    AND rules.job = 'products'
    AND rules.rule <> 'missing_sku';  -- whose key is a name

SELECT * FROM elt.publish_rows('silver.data_quality_issues', 'data_quality_issues_now');
