-- Claim: on every loaded day the histories hold what was loaded: the same number of products, stock rows and pieces.
-- No range begins or ends on a day that was not loaded.
-- A gap shows as a row too few, an overlap of two ranges as a row too many.
-- What to do: somebody changed a history or silver.loaded_days by hand.  SELECT * FROM elt.runs shows which runs loaded
-- the day.

WITH

-- Rows that begin on a day count +, rows that end on it -.  The sum up to a day is the number of rows on that day.
-- MATERIALIZED: computed once, not once per day.
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
