-- Claim: each of the 28 days before the current one was loaded, from the first loaded day on.
-- This check only warns: the daily facts have no rows of a missing day, and the day after shows the changes of both.
-- What to do: nothing, if nobody meant to load that day.  Keboola keeps no past days, so load a missed day the morning
-- after, before the next export replaces it: python elt_daily_load.py --date 2026-01-31

SELECT 'a day was not loaded' AS message, dim_date.date_key AS day
FROM gold.dim_date
INNER JOIN gold.dim_date AS today ON today.is_current
WHERE NOT dim_date.is_loaded
    AND dim_date.date_key BETWEEN today.date_key - 28 AND today.date_key;
