-- Claim: every row of silver.stock_levels has its product in silver.products.
-- Both come from the same bronze rows, so a stock row alone means that one of the two scripts was changed
-- without the other.
-- What to do: compare how silver/products.sql and silver/stock_levels.sql read the SKU, then run both jobs.

SELECT
    'stock of a product that silver.products does not have' AS message,
    product_sku,
    warehouse_id,
    quantity_available
FROM silver.stock_levels
WHERE NOT EXISTS (SELECT FROM silver.products WHERE products.product_sku = stock_levels.product_sku);
