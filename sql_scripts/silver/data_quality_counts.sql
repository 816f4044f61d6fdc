-- silver.data_quality_counts: one row per loaded day and rule that had issues on it.
-- Reads silver.data_quality_issues, bronze.products, bronze.products_inventory_locations.

CREATE TABLE IF NOT EXISTS silver.data_quality_counts (
    day         date   NOT NULL,
    rule        text   NOT NULL,
    severity    text   NOT NULL,
    job         text   NOT NULL,
    issue_count bigint NOT NULL,
    row_count   bigint NOT NULL,
    example_key text   NOT NULL,
    PRIMARY KEY (day, rule)
);

SELECT elt.add_column('silver.data_quality_counts', 'pieces', 'numeric');

COMMENT ON TABLE silver.data_quality_counts IS
    'One row per loaded day and rule that had issues on it. No row: the rule had no issue on that day.';
COMMENT ON COLUMN silver.data_quality_counts.day IS 'Loaded day, as in silver.loaded_days.';
COMMENT ON COLUMN silver.data_quality_counts.rule IS
    'Short name of the rule, such as missing_sku; silver.data_quality_rules explains each.';
COMMENT ON COLUMN silver.data_quality_counts.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: an optional value is missing.';
COMMENT ON COLUMN silver.data_quality_counts.job IS 'Job that loaded the rows, such as products.';
COMMENT ON COLUMN silver.data_quality_counts.issue_count IS
    'Issues of this rule on that day. One row can have several.';
COMMENT ON COLUMN silver.data_quality_counts.row_count IS
    'All rows that the job loaded on that day, good ones included.';
COMMENT ON COLUMN silver.data_quality_counts.example_key IS
    'One row_key of silver.data_quality_issues, to look for: the smallest of that day.';
COMMENT ON COLUMN silver.data_quality_counts.pieces IS
    'Pieces that the issues concern; those of a product count once. NULL: not known, or loaded by an older version.';

DROP TABLE IF EXISTS pg_temp.data_quality_counts_now;
CREATE TEMP TABLE data_quality_counts_now AS
WITH

loaded (job, row_count) AS (
    SELECT 'products', count(*) FROM bronze.products
    UNION ALL
    SELECT 'products_inventory_locations', count(*) FROM bronze.products_inventory_locations
),

-- All issues of one product concern the same pieces, so they count once.  Issues of stock rows add up.
by_key AS (
    SELECT
        rule,
        severity,
        job,
        row_key,
        count(*) AS issue_count,
        CASE WHEN job = 'products' THEN max(pieces) ELSE sum(pieces) END AS pieces
    FROM silver.data_quality_issues
    GROUP BY rule, severity, job, row_key
)

SELECT
    elt.run_date() AS day,
    by_key.rule,
    by_key.severity,
    by_key.job,
    sum(by_key.issue_count)::bigint AS issue_count,
    loaded.row_count,
    min(by_key.row_key COLLATE "C") AS example_key,
    sum(by_key.pieces) AS pieces
FROM by_key
INNER JOIN loaded ON loaded.job = by_key.job
GROUP BY by_key.rule, by_key.severity, by_key.job, loaded.row_count;

SELECT * FROM elt.publish_rows('silver.data_quality_counts', 'data_quality_counts_now', 'day = elt.run_date()');
