-- Claim: nothing disappears silently.  Rows of bronze, less those listed in silver.data_quality_issues, are the rows of
-- silver; the same holds for the pieces available.
-- What to do: a silver script leaves rows out without listing them, or lists rows that it holds; compare
-- silver/data_quality_issues.sql with the script of the table named.

WITH

counted (what, bronze, listed, silver) AS (
    SELECT
        'rows of products',
        (SELECT count(*) FROM bronze.products),
        (SELECT count(*) FROM silver.data_quality_issues WHERE rule IN ('missing_sku', 'duplicate_sku')),
        (SELECT count(*) FROM silver.products)

    UNION ALL
    SELECT
        'rows of products_inventory_locations',
        (SELECT count(*) FROM bronze.products_inventory_locations),
        (SELECT count(*) FROM silver.data_quality_issues WHERE rule = 'stock_without_product'),
        (SELECT coalesce(sum(bronze_row_count), 0) FROM silver.stock_levels)

    UNION ALL
    SELECT
        'pieces available',
        (SELECT coalesce(sum(elt.to_number(quantity_available)), 0) FROM bronze.products_inventory_locations),
        (
            SELECT coalesce(sum(elt.to_number(value_received)), 0)
            FROM silver.data_quality_issues
            WHERE rule IN ('stock_without_product', 'duplicate_stock_row')
        ),
        (SELECT coalesce(sum(quantity_available), 0) FROM silver.stock_levels)
)

SELECT 'bronze less listed is not silver' AS message, what, bronze, listed, silver
FROM counted
WHERE bronze - listed <> silver;
