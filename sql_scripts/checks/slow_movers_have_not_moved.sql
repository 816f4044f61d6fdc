-- Claim: each product of gold.slow_movers has stock, and its last decrease is before the last 28 loaded days.
-- What to do: gold/slow_movers.sql and gold/stock_forecast.sql count days differently; look at what changed in them.

WITH

days AS (
    SELECT loaded_days.day
    FROM silver.loaded_days
    INNER JOIN silver.loaded_days AS today ON today.is_current AND loaded_days.day <= today.day
    ORDER BY loaded_days.day DESC
    LIMIT 28
)

SELECT 'a slow mover went down, or is out' AS message, product_sku, total_stock, last_decrease
FROM gold.slow_movers
WHERE last_decrease >= (SELECT min(day) FROM days)
    OR total_stock <= 0;
