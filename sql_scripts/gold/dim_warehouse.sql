-- gold.dim_warehouse: the warehouses.  Reads silver.warehouses.

CREATE OR REPLACE VIEW gold.dim_warehouse AS
SELECT warehouse_key, warehouse_id, warehouse_name, warehouse_identifier, is_loaded
FROM silver.warehouses;

COMMENT ON VIEW gold.dim_warehouse IS
    'One row per warehouse that was ever loaded, under its latest name; warehouse_key 0 is the unknown one.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_key IS 'Number of the warehouse; facts refer to it. It never changes.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_id IS 'The warehouse as Keboola knows it; ''unknown'' for the unknown one.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_name IS 'Name of the warehouse.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_identifier IS 'Short code of the warehouse.';
COMMENT ON COLUMN gold.dim_warehouse.is_loaded IS 'Whether the current load has stock in it.';
