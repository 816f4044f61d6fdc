-- Claim: no row disappears silently.  Rows of bronze, minus those that silver.data_quality_issues lists as left out,
-- are the rows of silver.  The same is true for the available pieces.
-- What to do: a silver script leaves rows out without listing them, or lists rows that it keeps.  Compare
-- silver/product_issues.sql or silver/stock_issues.sql with the script of the table that the row names.

WITH

bronze_stock AS (
    SELECT count(*) AS stock_rows, coalesce(sum(elt.to_number(quantity_available)), 0) AS pieces
    FROM bronze.products_inventory_locations
),

silver_stock AS (
    SELECT coalesce(sum(bronze_row_count), 0) AS stock_rows, coalesce(sum(quantity_available), 0) AS pieces
    FROM silver.stock_levels
),

listed AS (
    SELECT
        count(*) FILTER (WHERE rule IN ('missing_sku', 'sku_too_long', 'duplicate_sku')) AS products,
        count(*) FILTER (WHERE rule = 'stock_without_product') AS stock_rows,
        coalesce(
            sum(elt.to_number(value_received)) FILTER (WHERE rule IN ('stock_without_product', 'duplicate_stock_row')),
            0
        ) AS pieces
    FROM silver.data_quality_issues
),

counted (what, bronze, listed, silver) AS (
    SELECT
        'rows of products',
        (SELECT count(*) FROM bronze.products),
        listed.products,
        (SELECT count(*) FROM silver.products)
    FROM listed

    UNION ALL
    SELECT 'rows of products_inventory_locations', bronze_stock.stock_rows, listed.stock_rows, silver_stock.stock_rows
    FROM bronze_stock
    CROSS JOIN listed
    CROSS JOIN silver_stock

    UNION ALL
    SELECT 'pieces available', bronze_stock.pieces, listed.pieces, silver_stock.pieces
    FROM bronze_stock
    CROSS JOIN listed
    CROSS JOIN silver_stock
)

SELECT 'bronze less listed is not silver' AS message, what, bronze, listed, silver
FROM counted
WHERE bronze - listed <> silver;
