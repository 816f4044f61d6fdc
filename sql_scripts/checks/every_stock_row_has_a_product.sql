-- Claim: every row of silver.stock_levels has its product in silver.products.
-- Both tables read the SKU from the same bronze rows.  So a stock row without a product means that one of the two
-- scripts was changed without the other.
-- What to do: compare how silver/product_rows.sql and silver/stock_rows.sql read the SKU, then run both jobs.

SELECT
    'stock of a product that silver.products does not have' AS message,
    product_sku,
    warehouse_id,
    quantity_available
FROM silver.stock_levels
WHERE NOT EXISTS (SELECT FROM silver.products WHERE products.product_sku = stock_levels.product_sku);
