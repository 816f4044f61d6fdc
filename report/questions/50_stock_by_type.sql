-- How did the stock of each kind of product go?
-- Pieces that can be sold, of each product type, on each day.
-- chart: line x=date_key y=pieces color=product_type
SELECT date_key, product_type, sum(quantity_available) AS pieces
FROM gold.fact_inventory_daily
INNER JOIN gold.dim_product USING (product_key)
WHERE date_key > (SELECT max(date_key) - 90 FROM gold.fact_inventory_daily)
GROUP BY date_key, product_type
ORDER BY date_key DESC, product_type ASC;
