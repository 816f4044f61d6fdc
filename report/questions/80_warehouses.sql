-- What does each warehouse hold?
-- chart: bar x=warehouse_name y=quantity_available
SELECT
    warehouse_name,
    products_in_stock,
    quantity_available,
    quantity_without_product,
    round(space_taken_cm3 / 1000) AS litres
FROM gold.warehouse_stock_summary
ORDER BY warehouse_id;
