-- What never moves, and how much space does it take?
-- Products with stock whose stock did not decrease for a long time. The largest come first.
SELECT product_sku, product_name, total_stock, round(space_taken_cm3 / 1000, 1) AS litres, last_decrease
FROM gold.slow_movers
ORDER BY space_taken_cm3 DESC, product_sku ASC;
