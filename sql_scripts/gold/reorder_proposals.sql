-- gold.reorder_proposals: what to order, how much, and until when?
-- Reads gold.stock_forecast, silver.stock_thresholds, silver.loaded_days.
-- A product is proposed at or below its threshold, and where its stock lasts no longer than a delivery takes.

CREATE OR REPLACE VIEW gold.reorder_proposals AS
WITH

products AS (
    SELECT
        forecast.*,
        today.day AS today,
        coalesce(of_type.low_stock_threshold, of_all.low_stock_threshold) AS low_stock_threshold,
        greatest(coalesce(of_type.lead_time_days, of_all.lead_time_days, 14), 0)::numeric AS lead_time_days,
        greatest(coalesce(of_type.cover_days, of_all.cover_days, 28), 0)::numeric AS cover_days
    FROM gold.stock_forecast AS forecast
    INNER JOIN silver.loaded_days AS today ON today.is_current
    LEFT JOIN silver.stock_thresholds AS of_type ON of_type.product_type = forecast.product_type
    LEFT JOIN silver.stock_thresholds AS of_all ON of_all.product_type = '*'
    WHERE forecast.product_status = 'Active'
),

-- Days of cover are compared without rounding: total_stock / (total_decrease / calendar_days) <= lead_time_days.
proposed AS (
    SELECT *, total_stock <= low_stock_threshold AS is_low
    FROM products
    WHERE total_stock <= low_stock_threshold
        OR (total_decrease > 0 AND total_stock * calendar_days <= lead_time_days * total_decrease)
)

SELECT
    product_sku,
    product_name,
    product_type,
    total_stock,
    low_stock_threshold,
    average_daily_decrease,
    days_of_cover,
    lead_time_days::integer AS lead_time_days,
    cover_days::integer AS cover_days,
    ceil(
        greatest(low_stock_threshold, total_decrease * (lead_time_days + cover_days) / calendar_days) - total_stock
    ) AS reorder_quantity,
    CASE
        WHEN is_low AND total_decrease IS NULL THEN 'below its threshold; less than 28 days of history'
        WHEN is_low THEN 'below its threshold'
        ELSE 'runs out before a delivery arrives'
    END AS reason,
    CASE
        WHEN total_stock <= 0 OR total_decrease IS NULL THEN today
        -- nobody plans for more than a hundred years, and dates end somewhere
        WHEN total_decrease > 0 AND total_stock * calendar_days <= 36500 * total_decrease
            THEN today + greatest(floor(total_stock * calendar_days / total_decrease) - lead_time_days, 0)::integer
    END AS order_by
FROM proposed;

COMMENT ON VIEW gold.reorder_proposals IS
    'One row per active product that should be ordered: it is at or below its threshold, or runs out before a delivery arrives.';
COMMENT ON COLUMN gold.reorder_proposals.product_sku IS 'Stock keeping unit.';
COMMENT ON COLUMN gold.reorder_proposals.product_name IS 'Name of the product.';
COMMENT ON COLUMN gold.reorder_proposals.product_type IS 'Kind of product.';
COMMENT ON COLUMN gold.reorder_proposals.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.reorder_proposals.low_stock_threshold IS 'The threshold of its type in silver.stock_thresholds.';
COMMENT ON COLUMN gold.reorder_proposals.average_daily_decrease IS
    'Pieces by which it went down a calendar day, as in gold.stock_forecast. NULL where history is too short.';
COMMENT ON COLUMN gold.reorder_proposals.days_of_cover IS
    'Days that total_stock lasts at that rate. NULL where history is too short, or nothing went.';
COMMENT ON COLUMN gold.reorder_proposals.lead_time_days IS
    'Days from an order to its delivery, of its type in silver.stock_thresholds.';
COMMENT ON COLUMN gold.reorder_proposals.cover_days IS
    'Days that the stock should last after the delivery, of its type in silver.stock_thresholds.';
COMMENT ON COLUMN gold.reorder_proposals.reorder_quantity IS
    'Pieces to order: the larger of the threshold and the average decrease of lead_time_days and cover_days, less total_stock, rounded up. 0: it is at its threshold, and nothing went.';
COMMENT ON COLUMN gold.reorder_proposals.reason IS
    'below its threshold (or at it); runs out before a delivery arrives. The first one stands where both hold, and says so where less than 28 days of history leave only the threshold.';
COMMENT ON COLUMN gold.reorder_proposals.order_by IS
    'The last day on which an order arrives in time, today at the earliest. Today where it is out, or history is too short to tell; NULL where nothing went in 28 days, or it lasts for more than 100 years.';
