-- Claim: gold.load_status has exactly one row, for the day that silver holds.
-- What to do: a join in gold/load_status.sql loses or doubles rows; look at its last changes,
-- and at silver.loaded_days.

SELECT 'not one row of the current day' AS message, rows_in_gold, day_in_gold, day_in_silver
FROM (
    SELECT
        (SELECT count(*) FROM gold.load_status) AS rows_in_gold,
        (SELECT min(date_key) FROM gold.load_status) AS day_in_gold,
        (SELECT min(day) FROM silver.loaded_days WHERE is_current) AS day_in_silver
) AS status
WHERE rows_in_gold <> 1
    OR day_in_gold IS DISTINCT FROM day_in_silver;
