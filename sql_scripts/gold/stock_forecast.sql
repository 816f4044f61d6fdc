-- gold.stock_forecast: how long will the stock last?
-- Reads silver.products, silver.product_stock, silver.product_stock_history, silver.loaded_days.
-- Each of the last 28 loaded days is compared with the loaded day before it.  Only decreases count, because deliveries
-- say nothing about how fast a product sells.  A product that lacks one of these days has no forecast.

CREATE OR REPLACE VIEW gold.stock_forecast AS
WITH

-- 28 days to compare, and the day before the first of them.
parameters (days_needed) AS (
    VALUES (28 + 1)
),

-- Numbered from the newest, which is 1.
days AS (
    SELECT loaded_days.day, row_number() OVER (ORDER BY loaded_days.day DESC) AS number
    FROM silver.loaded_days
    INNER JOIN silver.loaded_days AS today ON today.is_current AND loaded_days.day <= today.day
),

span AS (
    SELECT
        days_needed,
        max(day) FILTER (WHERE number = 1) AS last_day,
        min(day) FILTER (WHERE number <= days_needed) AS first_day,
        max(day) FILTER (WHERE number = 1) - max(day) FILTER (WHERE number = days_needed) AS calendar_days
    FROM days
    CROSS JOIN parameters
    GROUP BY days_needed
),

-- Ranges begin and end on loaded days, so the difference of two day numbers is the number of loaded days.
ranges AS (
    SELECT
        stock.product_sku,
        stock.total_stock,
        begins.number - coalesce(ends.number, 0) AS day_count,
        lag(stock.total_stock) OVER (PARTITION BY stock.product_sku ORDER BY stock.valid_from) - stock.total_stock
            AS decrease
    FROM silver.product_stock_history AS stock
    INNER JOIN span ON stock.valid_from <= span.last_day AND stock.valid_to > span.first_day
    INNER JOIN days AS begins ON begins.day = greatest(stock.valid_from, span.first_day)
    LEFT JOIN days AS ends ON ends.day = stock.valid_to
),

decreases AS (
    SELECT
        ranges.product_sku,
        sum(ranges.day_count)::integer AS days_with_data,
        CASE
            WHEN sum(ranges.day_count) = span.days_needed
                THEN coalesce(sum(ranges.decrease) FILTER (WHERE ranges.decrease > 0), 0)
        END AS decrease
    FROM ranges
    CROSS JOIN span
    GROUP BY ranges.product_sku, span.days_needed
),

forecasts AS (
    SELECT
        products.product_sku,
        products.product_name,
        products.product_type,
        CASE WHEN products.is_active THEN 'Active' ELSE 'Inactive' END AS product_status,
        stock.total_stock,
        coalesce(decreases.days_with_data, 0) AS days_with_data,
        decreases.decrease,
        span.calendar_days,
        span.last_day,
        CASE
            WHEN decreases.decrease > 0 THEN greatest(stock.total_stock, 0) * span.calendar_days / decreases.decrease
        END AS cover
    FROM silver.products
    CROSS JOIN span
    INNER JOIN silver.product_stock AS stock ON stock.product_sku = products.product_sku
    -- LEFT, although each product has a row: for an inner join the planner expects far too few rows.
    LEFT JOIN decreases ON decreases.product_sku = products.product_sku
)

SELECT
    product_sku,
    product_name,
    product_type,
    total_stock,
    days_with_data,
    round(decrease / calendar_days, 4) AS average_daily_decrease,
    round(cover, 1) AS days_of_cover,
    -- limit to 36,500 days, because dates have an upper bound
    CASE WHEN total_stock > 0 AND cover <= 36500 THEN last_day + ceil(cover)::integer END AS expected_stock_out_date,
    decrease AS total_decrease,
    calendar_days,
    product_status
FROM forecasts;

COMMENT ON VIEW gold.stock_forecast IS
    'One row per product: how fast its total stock went down on the last 28 loaded days, and how long it lasts at this rate.';
COMMENT ON COLUMN gold.stock_forecast.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.stock_forecast.product_name IS
    'Name in the current load, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.stock_forecast.product_type IS
    'Type in the current load, such as cable. NULL: Keboola has none.';
COMMENT ON COLUMN gold.stock_forecast.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.stock_forecast.days_with_data IS
    'On how many of the last 29 loaded days (28 and the one before) the product was there. A forecast needs all 29.';
COMMENT ON COLUMN gold.stock_forecast.average_daily_decrease IS
    'Pieces per calendar day by which total_stock went down on these days. Increases do not count. NULL: too little history.';
COMMENT ON COLUMN gold.stock_forecast.days_of_cover IS
    'Days that total_stock lasts at this rate; 0 if it is out. NULL: too little history, or the stock did not go down.';
COMMENT ON COLUMN gold.stock_forecast.expected_stock_out_date IS
    'First day without stock at this rate. NULL: too little history, the stock did not go down, it is out already, or it lasts for more than 100 years.';
COMMENT ON COLUMN gold.stock_forecast.total_decrease IS
    'Pieces by which total_stock went down on these days in total. NULL: too little history.';
COMMENT ON COLUMN gold.stock_forecast.calendar_days IS
    'Calendar days from the first to the last of these days. average_daily_decrease is total_decrease / calendar_days.';
COMMENT ON COLUMN gold.stock_forecast.product_status IS 'Active or Inactive, by is_active in Keboola.';
