-- silver.data_quality_issues, the rows of job products: problems in bronze.products.
-- Reads bronze.products, silver.product_rows, silver.products, silver.product_stock, silver.stock_levels.
-- A row that silver.products leaves out is listed once.  Its values are not checked, because they are not used.

DROP TABLE IF EXISTS pg_temp.product_issues_now;
CREATE TEMP TABLE product_issues_now AS
WITH

doubtful AS MATERIALIZED (
    SELECT
        product_rows.product_sku,
        product_rows.sku_rank,
        product_rows.product_name,
        product_rows.product_type,
        product_rows.is_active,
        product_rows.weight_g,
        product_rows.length_cm,
        product_rows.width_cm,
        product_rows.height_cm,
        bronze_row.name AS name_received,
        bronze_row.product_type AS product_type_received,
        bronze_row.is_active AS is_active_received,
        bronze_row.weight_value,
        bronze_row.weight_unit,
        bronze_row.dimensions_length,
        bronze_row.dimensions_width,
        bronze_row.dimensions_height,
        bronze_row.dimensions_unit,
        bronze_row::text AS row_text
    FROM silver.product_rows
    CROSS JOIN LATERAL jsonb_populate_record(NULL::bronze.products, product_rows.received) AS bronze_row
    WHERE product_rows.received IS NOT NULL
),

used AS (
    SELECT * FROM doubtful WHERE sku_rank = 1
),

-- The SKU without what people overlook: case, the form in which Unicode writes a letter, characters that nobody sees.
-- After NFKD an accented letter is a plain one and an accent.  The case of plain ones is the same in every locale; that
-- of others, such as those of Cyrillic, is what the locale of the database knows.
bare_skus AS (
    SELECT
        product_sku,
        lower(
            CASE
                WHEN product_sku ~ '^[!-~]*$' THEN product_sku  -- fast path
                ELSE regexp_replace(
                    normalize(product_sku, nfkd),
                    '[' || elt.invisible() || '\u0001-\u0020\u007f-\u00a0\u180b-\u180f\ufe00-\ufe0f'
                    '\U000e0000-\U000e0fff]',
                    '',
                    'g'
                )
            END COLLATE "C"
        ) AS bare_sku
    FROM silver.products
),

looks AS (
    SELECT product_sku, lower(bare_sku COLLATE "default") AS look FROM bare_skus
),

similar_skus AS (
    SELECT look, min(product_sku COLLATE "C") AS first_sku, max(product_sku COLLATE "C") AS last_sku
    FROM looks
    GROUP BY look
    HAVING count(*) > 1
),

issues (rule, row_key, column_name, value_received, value_used) AS (
    SELECT
        CASE WHEN elt.to_text(sku) IS NULL THEN 'missing_sku' ELSE 'sku_too_long' END,
        coalesce(elt.to_line(name), 'no name'),
        'sku',
        sku,
        NULL
    FROM bronze.products
    WHERE elt.to_key(sku) IS NULL

    UNION ALL
    SELECT 'duplicate_sku', product_sku, 'sku', row_text, NULL
    FROM doubtful
    WHERE sku_rank > 1

    -- value_received: another SKU that looks the same
    UNION ALL
    SELECT
        'similar_sku',
        looks.product_sku,
        'sku',
        CASE WHEN looks.product_sku = similar_skus.first_sku THEN similar_skus.last_sku ELSE similar_skus.first_sku END,
        NULL
    FROM similar_skus
    INNER JOIN looks ON looks.look = similar_skus.look

    UNION ALL
    SELECT 'is_active_is_neither', product_sku, 'is_active', is_active_received, is_active::text
    FROM used
    WHERE elt.to_text(is_active_received) <> '1'

    UNION ALL
    SELECT 'line_break_in_product', product_sku, texts.column_name, texts.value_received, texts.value_used
    FROM used
    CROSS JOIN LATERAL (
        VALUES ('name', name_received, product_name), ('product_type', product_type_received, product_type)
    ) AS texts (column_name, value_received, value_used)
    WHERE elt.to_text(texts.value_received) IS DISTINCT FROM texts.value_used

    UNION ALL
    SELECT 'invalid_measure', product_sku, measures.column_name, measures.value_received, NULL
    FROM used
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
    SELECT 'unknown_unit', product_sku, 'weight_unit', weight_unit, NULL
    FROM used
    WHERE weight_g IS NULL AND elt.to_number(weight_value) > 0

    UNION ALL
    SELECT 'unknown_unit', product_sku, 'dimensions_unit', dimensions_unit, NULL
    FROM used
    WHERE num_nonnulls(length_cm, width_cm, height_cm) = 0
        AND greatest(
            elt.to_number(dimensions_length), elt.to_number(dimensions_width), elt.to_number(dimensions_height)
        ) > 0

    UNION ALL
    SELECT 'missing_weight', product_sku, 'weight_value', weight_value, NULL
    FROM used
    WHERE weight_g IS NULL

    UNION ALL
    SELECT
        'missing_dimensions',
        product_sku,
        'dimensions_length, dimensions_width, dimensions_height',
        concat(dimensions_length, ' x ', dimensions_width, ' x ', dimensions_height, ' ', dimensions_unit),
        NULL
    FROM used
    WHERE num_nulls(length_cm, width_cm, height_cm) > 0

    UNION ALL
    SELECT 'product_without_stock', product_sku, 'inventory_locations', NULL, NULL
    FROM silver.products
    WHERE NOT EXISTS (SELECT FROM silver.stock_levels WHERE stock_levels.product_sku = products.product_sku)
)

SELECT
    rules.rule,
    left(issues.row_key, 200) AS row_key,
    issues.column_name,
    row_number() OVER (
        PARTITION BY rules.rule, left(issues.row_key, 200), issues.column_name
        ORDER BY issues.value_received COLLATE "C", issues.value_used COLLATE "C"
    ) AS occurrence,
    rules.severity,
    rules.job,
    issues.value_received,
    issues.value_used,
    rules.explanation,
    stock.total_stock AS pieces
FROM issues
INNER JOIN silver.data_quality_rules AS rules ON rules.rule = issues.rule
LEFT JOIN silver.product_stock AS stock
    ON stock.product_sku = issues.row_key
    AND rules.rule NOT IN ('missing_sku', 'sku_too_long');  -- their row_key is a name, not a SKU

SELECT * FROM elt.publish_rows('silver.data_quality_issues', 'product_issues_now', $$job = 'products'$$);
