-- silver.data_quality_rules: one row per rule that product_issues.sql and stock_issues.sql apply.
-- Also creates silver.data_quality_issues: one row per row or value that silver leaves out, changes or lacks.

CREATE TABLE IF NOT EXISTS silver.data_quality_rules (
    rule        text PRIMARY KEY,
    severity    text NOT NULL CHECK (severity IN ('error', 'warning', 'info')),
    job         text NOT NULL,
    explanation text NOT NULL
);

COMMENT ON TABLE silver.data_quality_rules IS
    'One row per rule that silver.data_quality_issues can name, with its meaning.';
COMMENT ON COLUMN silver.data_quality_rules.rule IS 'Short name of the rule, such as missing_sku.';
COMMENT ON COLUMN silver.data_quality_rules.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: an optional value is missing.';
COMMENT ON COLUMN silver.data_quality_rules.job IS 'Job whose rows the rule applies to, such as products.';
COMMENT ON COLUMN silver.data_quality_rules.explanation IS 'What the rule means, and what silver does about it.';

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
    'One row per row or value of the current load that silver leaves out, changes or lacks.';
COMMENT ON COLUMN silver.data_quality_issues.rule IS
    'Short name of the rule, such as missing_sku; silver.data_quality_rules explains each.';
COMMENT ON COLUMN silver.data_quality_issues.row_key IS
    'Which row: a SKU; SKU / warehouse; link / warehouse for stock without product; the name of a product without a usable SKU; or a warehouse, for its name.';
COMMENT ON COLUMN silver.data_quality_issues.column_name IS 'Column of the bronze table that has the problem.';
COMMENT ON COLUMN silver.data_quality_issues.occurrence IS
    'Number from 1: tells issues apart that share rule, row_key and column_name.';
COMMENT ON COLUMN silver.data_quality_issues.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: an optional value is missing.';
COMMENT ON COLUMN silver.data_quality_issues.job IS 'Job that loaded the row, such as products.';
COMMENT ON COLUMN silver.data_quality_issues.value_received IS
    'Value as received; for duplicate_sku the whole row as text, for similar_sku the SKU that looks the same.';
COMMENT ON COLUMN silver.data_quality_issues.value_used IS 'Value that silver holds instead. NULL: none.';
COMMENT ON COLUMN silver.data_quality_issues.explanation IS 'What the rule means, and what silver did about it.';
COMMENT ON COLUMN silver.data_quality_issues.pieces IS
    'Pieces that the issue concerns. Products: total stock. Stock rows: quantity_available; for on_hand_above_available the pieces taken off, for negative_quantity the pieces below 0. NULL: not known.';

DROP TABLE IF EXISTS pg_temp.data_quality_rules_now;
CREATE TEMP TABLE data_quality_rules_now AS
WITH

of_products (rule, severity, explanation) AS (
    VALUES
        ('missing_sku', 'error', 'A product without SKU is left out.'),
        ('sku_too_long', 'error', 'A product whose SKU has more than 200 characters is left out.'),
        ('duplicate_sku', 'error', 'Another row of this SKU is used: an active one, else the smallest text.'),
        (
            'similar_sku',
            'warning',
            'Another SKU differs only by case, by Unicode form or by characters that nobody sees; both are kept.'
        ),
        ('is_active_is_neither', 'warning', 'Neither 1 nor empty; only true counts as active.'),
        ('line_break_in_product', 'warning', 'A line break in a name or type; a blank is used for it.'),
        (
            'invalid_measure',
            'warning',
            'No number above 0 with at most 18 digits before the point, so it is unknown.'
        ),
        ('unknown_unit', 'warning', 'Not one of in, cm, mm, m or oz, lb, g, kg, so the measure is unknown.'),
        ('missing_weight', 'info', 'The weight is unknown.'),
        ('missing_dimensions', 'info', 'Length, width or height is unknown.'),
        ('product_without_stock', 'info', 'No warehouse has a row of this product; its stock is 0.')
),

of_stock (rule, severity, explanation) AS (
    VALUES
        ('stock_without_product', 'error', 'No product with a SKU has this link, so the row is left out.'),
        (
            'duplicate_stock_row',
            'error',
            'The link names this warehouse twice; the row with the highest quantities is used.'
        ),
        (
            'quantity_is_no_number',
            'error',
            'No number, or one of 19 or more digits before the point; counts as 0.'
        ),
        ('missing_warehouse', 'warning', 'Counts as stock of the warehouse unknown.'),
        (
            'warehouse_id_too_long',
            'warning',
            'An id of more than 200 characters; counts as stock of the warehouse unknown.'
        ),
        ('negative_quantity', 'warning', 'Used as it is.'),
        ('on_hand_above_available', 'warning', 'More on hand than available; set to quantity_available.'),
        (
            'line_break_in_warehouse',
            'warning',
            'A line break in the name or code of a warehouse; a blank is used for it.'
        )
)

SELECT rule, severity, 'products' AS job, explanation FROM of_products
UNION ALL
SELECT rule, severity, 'products_inventory_locations', explanation FROM of_stock;

SELECT * FROM elt.publish_rows('silver.data_quality_rules', 'data_quality_rules_now');
