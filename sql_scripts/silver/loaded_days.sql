-- silver.loaded_days: one row per day that was loaded.
-- Reads silver.products, silver.stock_levels, silver.stock_without_product.
-- Loading a day again replaces its row.  An earlier day can be loaded later (--date).
-- The histories know these days only.

CREATE TABLE IF NOT EXISTS silver.loaded_days (
    day                date    PRIMARY KEY,
    is_current         boolean NOT NULL,
    product_count      bigint  NOT NULL,
    stock_row_count    bigint  NOT NULL,
    quantity_available numeric NOT NULL
);

COMMENT ON TABLE silver.loaded_days IS
    'One row per day that was loaded, with its totals. A check compares the histories with them.';
COMMENT ON COLUMN silver.loaded_days.day IS 'The day that the run loaded: elt.run_date().';
COMMENT ON COLUMN silver.loaded_days.is_current IS
    'True for the day that was loaded last; silver.products and silver.stock_levels hold it.';
COMMENT ON COLUMN silver.loaded_days.product_count IS 'Rows of silver.products on that day.';
COMMENT ON COLUMN silver.loaded_days.stock_row_count IS
    'Rows of silver.stock_levels and silver.stock_without_product on that day.';
COMMENT ON COLUMN silver.loaded_days.quantity_available IS 'Pieces that can be sold, summed over those stock rows.';

DROP TABLE IF EXISTS pg_temp.loaded_days_now;
CREATE TEMP TABLE loaded_days_now AS
SELECT
    elt.run_date() AS day,
    true AS is_current,
    (SELECT count(*) FROM silver.products) AS product_count,
    count(*) AS stock_row_count,
    coalesce(sum(quantity_available), 0) AS quantity_available
FROM (
    SELECT quantity_available FROM silver.stock_levels
    UNION ALL
    SELECT quantity_available FROM silver.stock_without_product
) AS stock

UNION ALL
SELECT day, false, product_count, stock_row_count, quantity_available
FROM silver.loaded_days
WHERE day <> elt.run_date();

SELECT * FROM elt.publish_rows('silver.loaded_days', 'loaded_days_now');
