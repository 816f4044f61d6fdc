-- Claim: for the current day the histories and the tables of today agree: gold.fact_inventory_daily with
-- silver.stock_levels and silver.stock_without_product (rows, pieces, and the sum of today's product keys), and
-- silver.product_stock_history with gold.product_status_summary.
-- What to do: load the day again.  If a threshold was edited since the load, a status differs until the next load.

WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

history AS (
    SELECT
        count(*) AS stock_rows,
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(product_key) AS product_keys
    FROM gold.fact_inventory_daily
    WHERE date_key = (SELECT day FROM today)
),

stock AS (
    SELECT
        sum(stock_rows) AS stock_rows,
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand
    FROM (
        SELECT count(*), sum(quantity_available), sum(quantity_on_hand) FROM silver.stock_levels
        UNION ALL
        SELECT count(*), sum(quantity_available), sum(quantity_on_hand) FROM silver.stock_without_product
    ) AS tables (stock_rows, quantity_available, quantity_on_hand)
),

-- Unmatched stock has key 0, so it adds nothing to the sum.
keys AS (
    SELECT sum(product_history.product_key * product_stock.warehouse_count) AS product_keys
    FROM today
    INNER JOIN silver.product_history ON day >= valid_from AND day < valid_to
    INNER JOIN silver.product_stock ON product_stock.product_sku = product_history.product_sku
),

totals (what, history, today) AS (
    SELECT totals.*
    FROM history
    CROSS JOIN stock
    CROSS JOIN keys
    CROSS JOIN LATERAL (
        VALUES
            ('rows', history.stock_rows, stock.stock_rows),
            ('quantity_available', history.quantity_available, stock.quantity_available),
            ('quantity_on_hand', history.quantity_on_hand, stock.quantity_on_hand),
            ('sum of product keys', history.product_keys, keys.product_keys)
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
