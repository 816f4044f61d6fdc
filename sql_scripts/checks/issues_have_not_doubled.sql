-- Claim: no rule has more than twice the issues of the loaded day before, unless at most 1 % of the rows have them.
-- This check only warns.
-- What to do: SELECT * FROM silver.data_quality_issues WHERE rule = '..' shows the rows; ask who fills the source.

SELECT 'twice as many issues as on the day before' AS message, rule, rows_yesterday, rows_today, share_of_rows
FROM gold.data_quality_summary
WHERE rows_today > 2 * rows_yesterday
    AND share_of_rows > 0.01;
