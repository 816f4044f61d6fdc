-- bronze.products: the landing table of in.c-interview_de.products, text exactly as received.

CREATE TABLE IF NOT EXISTS bronze.products (
    sku                 text,
    name                text,
    product_type        text,
    is_active           text,
    inventory_locations text,
    weight_value        text,
    weight_unit         text,
    dimensions_length   text,
    dimensions_width    text,
    dimensions_height   text,
    dimensions_unit     text
);

COMMENT ON TABLE bronze.products IS
    'Keboola''s products as received: text, no key, in no order; silver.products has them cleaned.';
COMMENT ON COLUMN bronze.products.sku IS 'Stock keeping unit; can be missing and can occur twice.';
COMMENT ON COLUMN bronze.products.name IS 'Name of the product.';
COMMENT ON COLUMN bronze.products.product_type IS 'Kind of product.';
COMMENT ON COLUMN bronze.products.is_active IS 'Keboola writes JSON true as 1, and JSON false as an empty string.';
COMMENT ON COLUMN bronze.products.inventory_locations IS
    'Link to products_inventory_locations.json_parentid; it changes with the row, so it only joins tables of one load. Empty: no stock rows.';
COMMENT ON COLUMN bronze.products.weight_value IS 'Weight, in weight_unit.';
COMMENT ON COLUMN bronze.products.weight_unit IS 'Unit of weight_value.';
COMMENT ON COLUMN bronze.products.dimensions_length IS 'Length, in dimensions_unit.';
COMMENT ON COLUMN bronze.products.dimensions_width IS 'Width, in dimensions_unit.';
COMMENT ON COLUMN bronze.products.dimensions_height IS 'Height, in dimensions_unit.';
COMMENT ON COLUMN bronze.products.dimensions_unit IS 'Unit of the three dimensions.';
