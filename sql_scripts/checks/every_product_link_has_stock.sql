-- Claim: every link that bronze.products names leads to stock rows.
-- Keboola gives a link only to a product that has stock rows, and a new link whenever the product changes.  A link
-- without rows means that the two tables come from different imports.
-- What to do: load both, python elt_run_job.py products products_inventory_locations;
-- if it stays, ask who imports them.

SELECT
    'products and products_inventory_locations no longer match: run both' AS message,
    sku AS product_sku,
    inventory_locations AS link_without_stock_rows
FROM bronze.products
WHERE inventory_locations IN (
    SELECT inventory_locations FROM bronze.products WHERE inventory_locations <> ''
    EXCEPT
    SELECT json_parentid FROM bronze.products_inventory_locations
);
