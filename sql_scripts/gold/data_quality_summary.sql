-- gold.data_quality_summary: what is wrong with the data, and is it getting worse?
-- One row per rule that had issues on any loaded day.
-- Reads silver.data_quality_counts, silver.loaded_days.

CREATE OR REPLACE VIEW gold.data_quality_summary AS
WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

yesterday AS (
    SELECT max(loaded_days.day) AS day
    FROM silver.loaded_days
    INNER JOIN today ON loaded_days.day < today.day
),

rules AS (
    SELECT DISTINCT rule, severity, job FROM silver.data_quality_counts
)

SELECT
    rules.rule,
    rules.severity,
    rules.job,
    coalesce(of_today.issue_count, 0) AS rows_today,
    CASE WHEN yesterday.day IS NOT NULL THEN coalesce(of_yesterday.issue_count, 0) END AS rows_yesterday,
    coalesce(round(of_today.issue_count::numeric / nullif(of_today.row_count, 0), 4), 0) AS share_of_rows,
    of_today.example_key,
    CASE WHEN of_today.rule IS NULL THEN 0 ELSE of_today.pieces END AS pieces
FROM rules
CROSS JOIN today
CROSS JOIN yesterday
LEFT JOIN silver.data_quality_counts AS of_today ON of_today.rule = rules.rule AND of_today.day = today.day
LEFT JOIN silver.data_quality_counts AS of_yesterday
    ON of_yesterday.rule = rules.rule
    AND of_yesterday.day = yesterday.day;

COMMENT ON VIEW gold.data_quality_summary IS
    'One row per rule that ever had issues: how many today, and on the loaded day before. The issues themselves are in silver.data_quality_issues.';
COMMENT ON COLUMN gold.data_quality_summary.rule IS
    'Short name of the rule, such as missing_sku; silver.data_quality_rules explains each.';
COMMENT ON COLUMN gold.data_quality_summary.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: an optional value is missing.';
COMMENT ON COLUMN gold.data_quality_summary.job IS 'Job that loads the rows, such as products.';
COMMENT ON COLUMN gold.data_quality_summary.rows_today IS 'Issues in the current load; 0 if there are none.';
COMMENT ON COLUMN gold.data_quality_summary.rows_yesterday IS
    'Issues on the loaded day before. NULL: no day was loaded before.';
COMMENT ON COLUMN gold.data_quality_summary.share_of_rows IS
    'rows_today divided by all rows that the job loaded; 0.01 is 1 in 100. A row can have several issues.';
COMMENT ON COLUMN gold.data_quality_summary.example_key IS
    'One row_key of silver.data_quality_issues, to look for. NULL: no issue today.';
COMMENT ON COLUMN gold.data_quality_summary.pieces IS
    'Pieces that today''s issues concern. Rules of products: the total stock of the products. Rules of stock rows: their quantity_available; for on_hand_above_available the pieces taken off quantity_on_hand, for negative_quantity the pieces below 0. NULL: not known.';
