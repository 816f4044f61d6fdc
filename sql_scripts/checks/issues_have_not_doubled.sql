-- Claim: no kind of issue is twice as frequent as on the day loaded before, and more than one in a hundred rows.
-- It warns.
-- What to do: SELECT * FROM silver.data_quality_issues WHERE rule = '..' shows the rows; ask who fills the source.

SELECT 'twice as many issues as on the day before' AS message, rule, rows_yesterday, rows_today, share_of_rows
FROM gold.data_quality_summary
WHERE rows_today > 2 * rows_yesterday
    AND share_of_rows > 0.01;
