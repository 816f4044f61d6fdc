-- Claim: on every loaded day the histories hold what was loaded on it: as many products and stock rows, and as many
-- pieces; and on no other day a range begins or ends.
-- A gap is a row too few, two ranges that overlap are one too many.
-- What to do: SELECT * FROM elt.runs shows which runs loaded the day;
-- somebody changed a history by hand, or loaded_days.

WITH

-- What begins on a day less what ends on it, summed up from the first day on.  MATERIALIZED: once, not once a day.
stock_steps AS MATERIALIZED (
    SELECT valid_from AS day, count(*) AS stock_rows, sum(quantity_available) AS pieces
    FROM silver.stock_history
    GROUP BY valid_from

    UNION ALL
    SELECT valid_to, -count(*), -sum(quantity_available)
    FROM silver.stock_history
    GROUP BY valid_to
),

product_steps AS MATERIALIZED (
    SELECT valid_from AS day, count(*) AS products
    FROM silver.product_history
    WHERE product_key <> 0
    GROUP BY valid_from

    UNION ALL
    SELECT valid_to, -count(*)
    FROM silver.product_history
    WHERE product_key <> 0
    GROUP BY valid_to
),

product_stock_steps AS MATERIALIZED (
    SELECT valid_from AS day, count(*) AS products
    FROM silver.product_stock_history
    GROUP BY valid_from

    UNION ALL
    SELECT valid_to, -count(*)
    FROM silver.product_stock_history
    GROUP BY valid_to
),

counted AS (
    SELECT
        loaded_days.day,
        totals.what,
        totals.history,
        totals.loaded
    FROM silver.loaded_days
    CROSS JOIN LATERAL (
        SELECT sum(stock_rows) AS stock_rows, sum(pieces) AS pieces
        FROM stock_steps
        WHERE stock_steps.day <= loaded_days.day
    ) AS stock
    CROSS JOIN LATERAL (
        VALUES
            ('rows of stock_history', stock.stock_rows, loaded_days.stock_row_count),
            ('pieces of stock_history', stock.pieces, loaded_days.quantity_available),
            (
                'rows of product_history',
                (SELECT sum(products) FROM product_steps WHERE product_steps.day <= loaded_days.day),
                loaded_days.product_count
            ),
            (
                'rows of product_stock_history',
                (SELECT sum(products) FROM product_stock_steps WHERE product_stock_steps.day <= loaded_days.day),
                loaded_days.product_count
            )
    ) AS totals (what, history, loaded)
)

SELECT 'history is not what was loaded' AS message, day, what, history, loaded
FROM counted
WHERE coalesce(history, 0) <> loaded

UNION ALL
SELECT 'a range begins or ends on a day that was not loaded', day, what, NULL, NULL
FROM (
    SELECT day, 'rows of stock_history' FROM stock_steps
    UNION
    SELECT day, 'rows of product_history' FROM product_steps
    UNION
    SELECT day, 'rows of product_stock_history' FROM product_stock_steps
) AS steps (day, what)
WHERE isfinite(day)
    AND day NOT IN (SELECT day FROM silver.loaded_days)
ORDER BY day, what;
