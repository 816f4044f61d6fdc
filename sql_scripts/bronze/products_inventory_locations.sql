-- bronze.products_inventory_locations: the landing table of in.c-interview_de.products_inventory_locations,
-- text exactly as received.

CREATE TABLE IF NOT EXISTS bronze.products_inventory_locations (
    json_parentid        text,
    warehouse_id         text,
    warehouse_name       text,
    warehouse_identifier text,
    quantity_available   text,
    quantity_on_hand     text,
    quarantined_quantity text,
    quantity_unavailable text
);

COMMENT ON TABLE bronze.products_inventory_locations IS
    'Stock rows as received from Keboola: all text, no key, no order. silver.stock_levels has them cleaned.';
COMMENT ON COLUMN bronze.products_inventory_locations.json_parentid IS
    'Link to products.inventory_locations (JSON_parentId in Keboola). Valid within one load; identical products share it.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_id IS 'Id of the warehouse; may be missing.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_name IS
    'Name of the warehouse, repeated in each of its rows.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_identifier IS
    'Short code of the warehouse, repeated in each of its rows.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_available IS
    'Pieces that can be sold; may be negative or not a number.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_on_hand IS
    'Pieces on the shelf; may be above quantity_available.';
COMMENT ON COLUMN bronze.products_inventory_locations.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_unavailable IS 'Pieces that cannot be sold.';
