-- Claim: a join of gold.fact_inventory with its dimensions neither loses nor doubles rows or pieces.  It has those of
-- silver.stock_levels and silver.stock_without_product, and its product keys add up to those of today.
-- What to do: column "what" says what differs.  Look at the last changes of the gold scripts, then for duplicate keys.

WITH

silver_totals AS (
    SELECT
        sum(stock_rows) AS stock_rows,
        sum(quantity_available) AS quantity_available,
        sum(quantity_on_hand) AS quantity_on_hand,
        sum(without_product) AS without_product
    FROM (
        SELECT count(*), sum(quantity_available), sum(quantity_on_hand), 0 FROM silver.stock_levels
        UNION ALL
        SELECT count(*), sum(quantity_available), sum(quantity_on_hand), count(*) FROM silver.stock_without_product
    ) AS stock (stock_rows, quantity_available, quantity_on_hand, without_product)
),

-- Unmatched stock has key 0, so it adds nothing to the sum.
keys AS (
    SELECT sum(product_history.product_key * product_stock.warehouse_count) AS product_keys
    FROM silver.loaded_days
    INNER JOIN silver.product_history ON day >= valid_from AND day < valid_to
    INNER JOIN silver.product_stock ON product_stock.product_sku = product_history.product_sku
    WHERE loaded_days.is_current
),

joined AS (
    SELECT
        count(*) AS stock_rows,
        sum(fact_inventory.quantity_available) AS quantity_available,
        sum(fact_inventory.quantity_on_hand) AS quantity_on_hand,
        sum(fact_inventory.product_key) AS product_keys,
        count(*) FILTER (WHERE dim_product.product_key = 0) AS without_product
    FROM gold.fact_inventory
    INNER JOIN gold.dim_product ON dim_product.product_key = fact_inventory.product_key
    INNER JOIN gold.dim_warehouse ON dim_warehouse.warehouse_key = fact_inventory.warehouse_key
    INNER JOIN gold.dim_date ON dim_date.date_key = fact_inventory.date_key
)

SELECT 'gold.fact_inventory with its dimensions is not silver' AS message, totals.*
FROM silver_totals
CROSS JOIN keys
CROSS JOIN joined
CROSS JOIN LATERAL (
    VALUES
        ('rows', joined.stock_rows, silver_totals.stock_rows),
        ('quantity_available', joined.quantity_available, silver_totals.quantity_available),
        ('quantity_on_hand', joined.quantity_on_hand, silver_totals.quantity_on_hand),
        ('sum of product keys', joined.product_keys, keys.product_keys),
        ('rows of the unknown product', joined.without_product, silver_totals.without_product)
) AS totals (what, gold, silver)
WHERE coalesce(gold, 0) <> coalesce(silver, 0);
