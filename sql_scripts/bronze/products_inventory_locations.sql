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
    'Keboola''s stock rows as received: text, no key, in no order; silver.stock_levels has them cleaned.';
COMMENT ON COLUMN bronze.products_inventory_locations.json_parentid IS
    'Link to products.inventory_locations (JSON_parentId in Keboola); valid within one load, shared by identical products.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_id IS 'The warehouse; can be missing.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_name IS 'Name of the warehouse.';
COMMENT ON COLUMN bronze.products_inventory_locations.warehouse_identifier IS 'Short code of the warehouse.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_available IS 'Pieces that can be sold.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_on_hand IS 'Pieces on the shelf; can be above quantity_available.';
COMMENT ON COLUMN bronze.products_inventory_locations.quarantined_quantity IS 'Pieces held back for inspection.';
COMMENT ON COLUMN bronze.products_inventory_locations.quantity_unavailable IS 'Pieces that cannot be sold.';
