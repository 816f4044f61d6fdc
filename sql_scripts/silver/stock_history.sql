-- silver.stock_history: one row per product, warehouse and range of days on which the stock stayed the same.
-- Reads silver.stock_levels, silver.stock_without_product, silver.loaded_days.
-- Ranges take about 1/90 of the space of one row per day: benchmarks/history_storage.py.

CREATE TABLE IF NOT EXISTS silver.stock_history (
    product_sku          text    NOT NULL,
    warehouse_id         text    NOT NULL,
    valid_from           date    NOT NULL,
    valid_to             date    NOT NULL CHECK (valid_from < valid_to),
    quantity_available   numeric NOT NULL,
    quantity_on_hand     numeric NOT NULL,
    quarantined_quantity numeric NOT NULL,
    quantity_unavailable numeric NOT NULL,
    PRIMARY KEY (product_sku, warehouse_id, valid_from)
);

COMMENT ON TABLE silver.stock_history IS
    'One row per product, warehouse and range of days on which the stock stayed the same. For one day: WHERE valid_from <= day AND valid_to > day.';
COMMENT ON COLUMN silver.stock_history.product_sku IS
    'SKU, as in silver.product_history; empty for stock without a product.';
COMMENT ON COLUMN silver.stock_history.warehouse_id IS
    'Id of the warehouse in Keboola; unknown if the stock row has none.';
COMMENT ON COLUMN silver.stock_history.valid_from IS 'First day of the range.';
COMMENT ON COLUMN silver.stock_history.valid_to IS 'First day after the range; infinity: the range has not ended.';
COMMENT ON COLUMN silver.stock_history.quantity_available IS 'Pieces that could be sold on these days.';
COMMENT ON COLUMN silver.stock_history.quantity_on_hand IS
    'Pieces on the shelf on these days; never above quantity_available.';
COMMENT ON COLUMN silver.stock_history.quarantined_quantity IS 'Pieces held back for inspection on these days.';
COMMENT ON COLUMN silver.stock_history.quantity_unavailable IS 'Pieces that could not be sold on these days.';

-- A view is enough, without a copy of the rows: while a run publishes, nobody else writes these tables.
DROP VIEW IF EXISTS pg_temp.stock_today;
CREATE TEMP VIEW stock_today AS
SELECT
    product_sku,
    warehouse_id,
    quantity_available,
    quantity_on_hand,
    quarantined_quantity,
    quantity_unavailable
FROM silver.stock_levels

UNION ALL
SELECT '', warehouse_id, quantity_available, quantity_on_hand, quarantined_quantity, quantity_unavailable
FROM silver.stock_without_product;

SELECT *
FROM elt.publish_history(
    'silver.stock_history',
    'stock_today',
    elt.run_date(),
    (SELECT min(day) FROM silver.loaded_days WHERE day > elt.run_date())
);
