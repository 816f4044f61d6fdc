-- Claim: each key of a dimension has one row, and each product has one row per day.
-- What to do: a join in a gold script doubles rows, or the silver table lost its constraint.

WITH

today AS (
    SELECT day FROM silver.loaded_days WHERE is_current
),

keys AS (
    SELECT 'dim_product' AS dimension, product_key::text AS dimension_key FROM gold.dim_product
    UNION ALL
    SELECT 'dim_product on the current day', product_sku
    FROM gold.dim_product
    WHERE (SELECT day FROM today) >= valid_from AND (SELECT day FROM today) < valid_to
    UNION ALL
    SELECT 'dim_warehouse', warehouse_key::text FROM gold.dim_warehouse
    UNION ALL
    SELECT 'dim_warehouse by its id', warehouse_id FROM gold.dim_warehouse
    UNION ALL
    SELECT 'dim_date', date_key::text FROM gold.dim_date
)

SELECT 'more than one row of a key' AS message, dimension, dimension_key, count(*) AS rows_of_it
FROM keys
GROUP BY dimension, dimension_key
HAVING count(*) > 1;
