-- How reliable are today's data?
-- Rows and values that were left out, changed or missing, by rule. silver.data_quality_issues lists each.
SELECT rule, severity, rows_today, rows_yesterday, share_of_rows, pieces, example_key
FROM gold.data_quality_summary
WHERE rows_today > 0 OR rows_yesterday > 0
ORDER BY rows_today DESC, rule ASC;
