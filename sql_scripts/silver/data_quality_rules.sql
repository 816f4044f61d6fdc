-- silver.data_quality_rules: one row per rule that product_issues.sql and stock_issues.sql look at.
-- Makes silver.data_quality_issues, too: one row per thing that silver could not hold, changed, or misses.

CREATE TABLE IF NOT EXISTS silver.data_quality_rules (
    rule        text PRIMARY KEY,
    severity    text NOT NULL CHECK (severity IN ('error', 'warning', 'info')),
    job         text NOT NULL,
    explanation text NOT NULL
);

COMMENT ON TABLE silver.data_quality_rules IS 'One row per rule of silver.data_quality_issues.';
COMMENT ON COLUMN silver.data_quality_rules.rule IS 'What is wrong, in one word.';
COMMENT ON COLUMN silver.data_quality_rules.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: something is missing that may be.';
COMMENT ON COLUMN silver.data_quality_rules.job IS 'The job whose rows it looks at.';
COMMENT ON COLUMN silver.data_quality_rules.explanation IS 'What the rule means and what is done.';

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

DROP TABLE IF EXISTS pg_temp.data_quality_rules_now;
CREATE TEMP TABLE data_quality_rules_now AS
WITH

of_products (rule, severity, explanation) AS (
    VALUES
        ('missing_sku', 'error', 'A product without SKU is left out.'),
        ('duplicate_sku', 'error', 'Another row of this SKU is used: an active one, else the smallest text.'),
        ('is_active_is_neither', 'warning', 'Neither 1 nor empty; only true counts as active.'),
        ('line_break_in_product', 'warning', 'A line break in a name or type; a blank is used for it.'),
        ('invalid_measure', 'warning', 'No number above 0, so it is unknown.'),
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
        ('quantity_is_no_number', 'error', 'Counts as 0.'),
        ('missing_warehouse', 'warning', 'Counts as stock of the warehouse unknown.'),
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
