-- gold.stock_forecast: how long will the stock last?
-- Reads silver.products, silver.product_stock, silver.product_stock_history, silver.loaded_days.
-- The last loaded days are compared, each with the loaded day before it.  Only decreases count: what was bought in says
-- nothing about how fast it goes.  A product that was not there on all of them has no forecast.

CREATE OR REPLACE VIEW gold.stock_forecast AS
WITH

-- The days that are compared, and the one before the first of them.
parameters (days_needed) AS (
    VALUES (28 + 1)
),

-- The newest is number 1.
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

-- Ranges begin and end on loaded days, so their days are counted by two numbers.
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
    LEFT JOIN decreases ON decreases.product_sku = products.product_sku  -- each has one; PostgreSQL expects far fewer
)

SELECT
    product_sku,
    product_name,
    product_type,
    total_stock,
    days_with_data,
    round(decrease / calendar_days, 4) AS average_daily_decrease,
    round(cover, 1) AS days_of_cover,
    -- nobody plans for more than a hundred years, and dates end somewhere
    CASE WHEN total_stock > 0 AND cover <= 36500 THEN last_day + ceil(cover)::integer END AS expected_stock_out_date,
    decrease AS total_decrease,
    calendar_days,
    product_status
FROM forecasts;

COMMENT ON VIEW gold.stock_forecast IS
    'One row per product: how fast its total stock went down in the last 28 days with data, and how long it lasts at that rate.';
COMMENT ON COLUMN gold.stock_forecast.product_sku IS 'Stock keeping unit.';
COMMENT ON COLUMN gold.stock_forecast.product_name IS 'Name of the product.';
COMMENT ON COLUMN gold.stock_forecast.product_type IS 'Kind of product.';
COMMENT ON COLUMN gold.stock_forecast.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.stock_forecast.days_with_data IS
    'How many of the last 29 loaded days (28, and the one before them) know the product; a forecast needs them all.';
COMMENT ON COLUMN gold.stock_forecast.average_daily_decrease IS
    'Pieces by which it went down a calendar day, in those days; increases do not count. NULL where history is too short.';
COMMENT ON COLUMN gold.stock_forecast.days_of_cover IS
    'Days that total_stock lasts at that rate; 0 where it is out. NULL where history is too short, or nothing went.';
COMMENT ON COLUMN gold.stock_forecast.expected_stock_out_date IS
    'The first day without stock at that rate; NULL as days_of_cover, where it is out already, or in more than 100 years.';
COMMENT ON COLUMN gold.stock_forecast.total_decrease IS
    'Pieces by which it went down in those days, all together. NULL where history is too short.';
COMMENT ON COLUMN gold.stock_forecast.calendar_days IS
    'Calendar days from the first to the last of those days; average_daily_decrease is total_decrease by this number.';
COMMENT ON COLUMN gold.stock_forecast.product_status IS 'Active or Inactive.';
