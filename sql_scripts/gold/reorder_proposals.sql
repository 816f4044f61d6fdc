-- gold.reorder_proposals: what to order, how much, and until when?
-- Reads gold.stock_forecast, silver.stock_thresholds, silver.loaded_days.
-- A product is proposed if it is at or below its threshold, or if its stock runs out before a delivery could arrive.

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

-- Means total_stock / (total_decrease / calendar_days) <= lead_time_days.  Multiplied out, because division rounds.
proposed AS (
    SELECT *, silver.stock_status(total_stock, low_stock_threshold) <> 'In Stock' AS is_low
    FROM products
    WHERE silver.stock_status(total_stock, low_stock_threshold) <> 'In Stock'
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
        -- limit to 36,500 days, because dates have an upper bound
        WHEN total_decrease > 0 AND total_stock * calendar_days <= 36500 * total_decrease
            THEN today + greatest(floor(total_stock * calendar_days / total_decrease) - lead_time_days, 0)::integer
    END AS order_by
FROM proposed;

COMMENT ON VIEW gold.reorder_proposals IS
    'One row per active product to order: it is at or below its threshold, or it runs out before a delivery arrives.';
COMMENT ON COLUMN gold.reorder_proposals.product_sku IS 'Stock keeping unit (SKU): the key of the product.';
COMMENT ON COLUMN gold.reorder_proposals.product_name IS
    'Name in the current load, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.reorder_proposals.product_type IS
    'Type in the current load, such as cable. NULL: Keboola has none.';
COMMENT ON COLUMN gold.reorder_proposals.total_stock IS 'Pieces that can be sold, in all warehouses.';
COMMENT ON COLUMN gold.reorder_proposals.low_stock_threshold IS
    'Threshold of its type in silver.stock_thresholds, or of row * if the type has none.';
COMMENT ON COLUMN gold.reorder_proposals.average_daily_decrease IS
    'Pieces per calendar day by which total_stock went down, as in gold.stock_forecast. NULL: less than 28 days of history.';
COMMENT ON COLUMN gold.reorder_proposals.days_of_cover IS
    'Days that total_stock lasts at this rate. NULL: too little history, or the stock did not go down.';
COMMENT ON COLUMN gold.reorder_proposals.lead_time_days IS
    'Days from an order to its delivery, by type in silver.stock_thresholds.';
COMMENT ON COLUMN gold.reorder_proposals.cover_days IS
    'Days that the stock should last after the delivery, by type in silver.stock_thresholds.';
COMMENT ON COLUMN gold.reorder_proposals.reorder_quantity IS
    'Pieces to order, rounded up: the demand of lead_time_days + cover_days, or the threshold if that is more, minus total_stock. 0: the product is exactly at its threshold, and its stock did not go down.';
COMMENT ON COLUMN gold.reorder_proposals.reason IS
    'below its threshold (or at it), or: runs out before a delivery arrives. If both are true, it is the first. With less than 28 days of history it is always the first, and says so.';
COMMENT ON COLUMN gold.reorder_proposals.order_by IS
    'Last day to order so that the delivery arrives in time; never before today. Today if the product is out, or history is too short to tell. NULL: the stock did not go down in 28 days, or lasts for more than 100 years.';
