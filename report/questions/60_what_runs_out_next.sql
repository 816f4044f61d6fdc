-- What will be out of stock next?
-- Active products, if their stock keeps decreasing as on average over the last 28 loaded days.
SELECT product_sku, total_stock, average_daily_decrease, days_of_cover, expected_stock_out_date
FROM gold.stock_forecast
WHERE product_status = 'Active' AND expected_stock_out_date IS NOT NULL
ORDER BY expected_stock_out_date, product_sku
LIMIT 10;
