-- silver.data_quality_issues, the rows of job products_inventory_locations: problems in its stock rows.
-- Reads silver.stock_rows, silver.stock_levels, bronze.products_inventory_locations.
-- A duplicate, or a row without a product, is listed once.  Its values are not checked, because silver.stock_levels
-- leaves the row out.

DROP TABLE IF EXISTS pg_temp.stock_issues_now;
CREATE TEMP TABLE stock_issues_now AS
WITH

doubtful AS MATERIALIZED (
    SELECT
        stock_rows.*,
        bronze_row.json_parentid,
        bronze_row.warehouse_id AS warehouse_id_received,
        bronze_row.quantity_available AS available_received,
        bronze_row.quantity_on_hand AS on_hand_received,
        bronze_row.quarantined_quantity AS quarantined_received,
        bronze_row.quantity_unavailable AS unavailable_received
    FROM silver.stock_rows
    CROSS JOIN LATERAL
        jsonb_populate_record(NULL::bronze.products_inventory_locations, stock_rows.received) AS bronze_row
    WHERE stock_rows.received IS NOT NULL
),

used AS (
    SELECT *, product_sku || ' / ' || warehouse_id AS row_key
    FROM doubtful
    WHERE product_sku IS NOT NULL AND is_used
),

used_quantities AS (
    SELECT used.row_key, quantities.*
    FROM used
    CROSS JOIN LATERAL (
        VALUES
            ('quantity_available', available_received, quantity_available, coalesce(quantity_available, 0)),
            (
                'quantity_on_hand',
                on_hand_received,
                quantity_on_hand,
                least(coalesce(quantity_on_hand, 0), coalesce(quantity_available, 0))
            ),
            ('quarantined_quantity', quarantined_received, quarantined_quantity, coalesce(quarantined_quantity, 0)),
            ('quantity_unavailable', unavailable_received, quantity_unavailable, coalesce(quantity_unavailable, 0))
    ) AS quantities (column_name, value_received, number_received, number_used)
),

-- The rows of a warehouse repeat its name.  A problem in the name is listed once per warehouse, not once per row.
warehouses AS (
    SELECT DISTINCT warehouse_id, warehouse_name, warehouse_identifier FROM bronze.products_inventory_locations
),

texts_of_warehouses AS (
    SELECT DISTINCT coalesce(elt.to_key(warehouse_id), 'unknown') AS warehouse_id, texts.*
    FROM warehouses
    CROSS JOIN LATERAL (
        VALUES ('warehouse_name', warehouse_name), ('warehouse_identifier', warehouse_identifier)
    ) AS texts (column_name, value_received)
),

-- pieces is NULL where the number of pieces is not known.
issues (rule, row_key, column_name, value_received, value_used, pieces) AS (
    SELECT
        'stock_without_product',
        concat_ws(' / ', coalesce(elt.to_text(json_parentid), 'no link'), warehouse_id),
        'quantity_available',
        available_received,
        NULL,
        coalesce(quantity_available, 0)
    FROM doubtful
    WHERE product_sku IS NULL

    UNION ALL
    SELECT
        'duplicate_stock_row',
        product_sku || ' / ' || warehouse_id,
        'quantity_available',
        available_received,
        NULL,
        coalesce(quantity_available, 0)
    FROM doubtful
    WHERE product_sku IS NOT NULL AND NOT is_used

    UNION ALL
    SELECT
        CASE
            WHEN elt.to_text(warehouse_id_received) IS NULL THEN 'missing_warehouse'
            ELSE 'warehouse_id_too_long'
        END,
        row_key,
        'warehouse_id',
        warehouse_id_received,
        warehouse_id,
        coalesce(quantity_available, 0)
    FROM used
    WHERE elt.to_key(warehouse_id_received) IS NULL

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
        warehouse_id,
        column_name,
        value_received,
        elt.to_line(value_received),
        NULL
    FROM texts_of_warehouses
    WHERE elt.to_text(value_received) IS DISTINCT FROM elt.to_line(value_received)
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
    issues.pieces
FROM issues
INNER JOIN silver.data_quality_rules AS rules ON rules.rule = issues.rule;

SELECT *
FROM elt.publish_rows('silver.data_quality_issues', 'stock_issues_now', $$job = 'products_inventory_locations'$$);
