-- Claim: gold.data_quality_summary counts the rows of silver.data_quality_issues for each rule.
-- What to do: a rule has two severities or two jobs in silver/data_quality_rules.sql, or the day was counted
-- before it was loaded.

SELECT
    'gold and silver differ' AS message,
    rule,
    summary.rows_today AS gold,
    issues.rows_today AS silver
FROM (SELECT rule, rows_today FROM gold.data_quality_summary) AS summary
FULL JOIN (
    SELECT rule, count(*) AS rows_today FROM silver.data_quality_issues GROUP BY rule
) AS issues USING (rule)
WHERE coalesce(summary.rows_today, -1) <> coalesce(issues.rows_today, 0);
