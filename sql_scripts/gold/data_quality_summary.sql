-- gold.data_quality_summary: what is wrong with the data, and is it getting worse?
-- One row per rule that was ever broken.
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
    'One row per rule that was ever broken: how often today and on the day loaded before. The rows: silver.data_quality_issues.';
COMMENT ON COLUMN gold.data_quality_summary.rule IS 'What is wrong, in one word.';
COMMENT ON COLUMN gold.data_quality_summary.severity IS
    'error: a row or number was left out; warning: a value was changed or is doubtful; info: something is missing that may be.';
COMMENT ON COLUMN gold.data_quality_summary.job IS 'The job that loads the rows.';
COMMENT ON COLUMN gold.data_quality_summary.rows_today IS 'Issues of this kind in the current load.';
COMMENT ON COLUMN gold.data_quality_summary.rows_yesterday IS
    'Issues of this kind on the day loaded before it; NULL where there is none.';
COMMENT ON COLUMN gold.data_quality_summary.share_of_rows IS
    'rows_today as a share of all rows that the job loaded, 0.01 being one in a hundred. A row can have several issues.';
COMMENT ON COLUMN gold.data_quality_summary.example_key IS 'The row_key of one of today''s issues.';
COMMENT ON COLUMN gold.data_quality_summary.pieces IS
    'Pieces that today''s issues concern. on_hand_above_available: how many were taken off quantity_on_hand; negative_quantity: how many are below 0; other rules of stock rows: their quantity_available; rules of products: their total stock. NULL where that is not known.';
