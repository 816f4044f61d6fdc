-- gold.dim_warehouse: the warehouses.  Reads silver.warehouses.

CREATE OR REPLACE VIEW gold.dim_warehouse AS
SELECT warehouse_key, warehouse_id, warehouse_name, warehouse_identifier, is_loaded
FROM silver.warehouses;

COMMENT ON VIEW gold.dim_warehouse IS
    'One row per warehouse that was ever loaded, with its latest name. warehouse_key 0 is the unknown warehouse.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_key IS
    'Number of the warehouse. Facts join by it, and it never changes. 0: unknown warehouse.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_id IS 'Id of the warehouse in Keboola; unknown for stock without one.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_name IS
    'Latest name of the warehouse, without line breaks. NULL: Keboola has none.';
COMMENT ON COLUMN gold.dim_warehouse.warehouse_identifier IS
    'Latest short code of the warehouse. NULL: Keboola has none.';
COMMENT ON COLUMN gold.dim_warehouse.is_loaded IS 'True if the current load has stock in this warehouse.';
