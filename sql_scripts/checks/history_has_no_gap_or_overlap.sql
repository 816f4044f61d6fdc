-- Claim: in the histories no range overlaps the next one, and two ranges without a gap between them differ.
-- It looks at keys with a range that begins or ends on the current day, on the day of this load, or on the loaded day
-- after it, because a load changes no others.  daily_facts_add_up.sql finds missing ranges.
-- What to do: look at the ranges of the key that the row names, ORDER BY valid_from; then load the day again.

WITH

-- Without the first loaded day, because the ranges of all keys begin there.
touched AS (
    SELECT day
    FROM silver.loaded_days
    WHERE day > (SELECT min(day) FROM silver.loaded_days)
        AND (
            is_current
            OR day = elt.run_date()
            OR day = (SELECT min(day) FROM silver.loaded_days WHERE day > elt.run_date())
        )
),

stock_ranges AS (
    SELECT
        'stock_history' AS history,
        product_sku,
        warehouse_id,
        valid_from,
        valid_to,
        ROW(quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable)::text AS state
    FROM silver.stock_history
    WHERE (product_sku, warehouse_id) IN (
        SELECT product_sku, warehouse_id
        FROM silver.stock_history
        WHERE valid_from IN (SELECT day FROM touched) OR valid_to IN (SELECT day FROM touched)
    )
),

product_ranges AS (
    SELECT
        'product_history' AS history,
        product_sku,
        NULL AS warehouse_id,
        valid_from,
        valid_to,
        ROW(
            product_name, product_type, weight_g, length_cm, width_cm, height_cm, is_active, has_dimensions
        )::text AS state
    FROM silver.product_history
    WHERE product_sku IN (
        SELECT product_sku
        FROM silver.product_history
        WHERE valid_from IN (SELECT day FROM touched) OR valid_to IN (SELECT day FROM touched)
    )
),

product_stock_ranges AS (
    SELECT
        'product_stock_history' AS history,
        product_sku,
        NULL AS warehouse_id,
        valid_from,
        valid_to,
        ROW(total_stock, stock_status)::text AS state
    FROM silver.product_stock_history
    WHERE product_sku IN (
        SELECT product_sku
        FROM silver.product_stock_history
        WHERE valid_from IN (SELECT day FROM touched) OR valid_to IN (SELECT day FROM touched)
    )
),

ranges AS (
    SELECT *, lead(valid_from) OVER later AS next_from, lead(state) OVER later AS next_state
    FROM (
        SELECT * FROM stock_ranges
        UNION ALL
        SELECT * FROM product_ranges
        UNION ALL
        SELECT * FROM product_stock_ranges
    ) AS all_ranges
    WINDOW later AS (PARTITION BY history, product_sku, warehouse_id ORDER BY valid_from)
)

SELECT
    CASE WHEN next_from < valid_to THEN 'two ranges overlap' ELSE 'two ranges that meet are equal' END AS message,
    history,
    concat_ws(' / ', product_sku, warehouse_id) AS history_key,
    valid_from,
    valid_to,
    next_from
FROM ranges
WHERE next_from < valid_to
    OR (next_from = valid_to AND next_state = state);
