-- Claim: of the current day the histories say what the tables of today say: gold.fact_inventory_daily what
-- gold.fact_inventory says, and silver.product_stock_history what gold.product_status_summary says.
-- What to do: load the day again; a threshold that was edited since the load makes a status differ until the next one.

WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

totals (what, history, today) AS (
    SELECT
        totals.*
    FROM (
        SELECT
            count(*) AS stock_rows,
            sum(quantity_available) AS quantity_available,
            sum(quantity_on_hand) AS quantity_on_hand,
            sum(product_key) AS product_keys
        FROM gold.fact_inventory_daily
        WHERE date_key = (SELECT day FROM today)
    ) AS history
    CROSS JOIN (
        SELECT
            count(*) AS stock_rows,
            sum(quantity_available) AS quantity_available,
            sum(quantity_on_hand) AS quantity_on_hand,
            sum(product_key) AS product_keys
        FROM gold.fact_inventory
    ) AS today
    CROSS JOIN LATERAL (
        VALUES
            ('rows', history.stock_rows, today.stock_rows),
            ('quantity_available', history.quantity_available, today.quantity_available),
            ('quantity_on_hand', history.quantity_on_hand, today.quantity_on_hand),
            ('sum of product keys', history.product_keys, today.product_keys)
    ) AS totals (what, history, today)
),

differences (what, history, today) AS (
    SELECT what, history::text, today::text FROM totals WHERE coalesce(history, 0) <> coalesce(today, 0)

    UNION ALL
    SELECT
        concat('product ', coalesce(summary.product_sku, history.product_sku)),
        concat(history.total_stock, ' ', history.stock_status),
        concat(summary.total_stock, ' ', summary.stock_status)
    FROM (
        SELECT product_sku, total_stock, stock_status
        FROM silver.product_stock_history
        WHERE (SELECT day FROM today) >= valid_from AND (SELECT day FROM today) < valid_to
    ) AS history
    FULL JOIN gold.product_status_summary AS summary ON summary.product_sku = history.product_sku
    WHERE (history.total_stock, history.stock_status) IS DISTINCT FROM (summary.total_stock, summary.stock_status)
)

SELECT 'history and today differ' AS message, what, history, today
FROM differences;
