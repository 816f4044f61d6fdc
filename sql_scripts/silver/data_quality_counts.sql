-- silver.data_quality_counts: one row per day and rule that was broken on it.
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
    'One row per loaded day and rule that was broken on it; a day without a row of a rule had no issue of that kind.';
COMMENT ON COLUMN silver.data_quality_counts.day IS 'The day, in silver.loaded_days.';
COMMENT ON COLUMN silver.data_quality_counts.rule IS 'What is wrong, as in silver.data_quality_issues.';
COMMENT ON COLUMN silver.data_quality_counts.severity IS 'error, warning or info.';
COMMENT ON COLUMN silver.data_quality_counts.job IS 'The job that loaded the rows.';
COMMENT ON COLUMN silver.data_quality_counts.issue_count IS 'Issues of this kind on that day.';
COMMENT ON COLUMN silver.data_quality_counts.row_count IS 'All rows that the job loaded on that day.';
COMMENT ON COLUMN silver.data_quality_counts.example_key IS 'The smallest row_key among them.';
COMMENT ON COLUMN silver.data_quality_counts.pieces IS
    'Pieces that they concern, those of a product once; NULL where that is not known, and on days loaded by an older version.';

DROP TABLE IF EXISTS pg_temp.data_quality_counts_now;
CREATE TEMP TABLE data_quality_counts_now AS
WITH

loaded (job, row_count) AS (
    SELECT 'products', count(*) FROM bronze.products
    UNION ALL
    SELECT 'products_inventory_locations', count(*) FROM bronze.products_inventory_locations
),

-- Two issues of a product concern the same pieces, two of stock rows others.
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
