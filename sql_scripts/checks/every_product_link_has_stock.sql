-- Claim: every link in bronze.products has stock rows.
-- Keboola links only products that have stock rows, and makes a new link whenever the product changes.  So a link
-- without stock rows means that the two tables come from different imports.
-- What to do: load both again, python elt_run_job.py products products_inventory_locations;
-- if the check fails again, ask the people who import the tables into Keboola.

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
