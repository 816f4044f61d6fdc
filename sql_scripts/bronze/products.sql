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
    'Products as received from Keboola: all text, no key, no order. silver.products has them cleaned.';
COMMENT ON COLUMN bronze.products.sku IS 'Stock keeping unit; may be missing, and several rows may have the same.';
COMMENT ON COLUMN bronze.products.name IS 'Name of the product; may contain line breaks.';
COMMENT ON COLUMN bronze.products.product_type IS 'Type of product, such as cable; may be missing.';
COMMENT ON COLUMN bronze.products.is_active IS '1 for true, empty for false: Keboola writes JSON booleans this way.';
COMMENT ON COLUMN bronze.products.inventory_locations IS
    'Link to products_inventory_locations.json_parentid. It changes whenever the product row changes, so it joins tables of one load only. Empty: no stock rows.';
COMMENT ON COLUMN bronze.products.weight_value IS 'Weight of a piece, in weight_unit; may be missing.';
COMMENT ON COLUMN bronze.products.weight_unit IS 'g, kg, oz or lb; other units are unknown to silver.';
COMMENT ON COLUMN bronze.products.dimensions_length IS 'Length of a piece, in dimensions_unit; may be missing.';
COMMENT ON COLUMN bronze.products.dimensions_width IS 'Width of a piece, in dimensions_unit; may be missing.';
COMMENT ON COLUMN bronze.products.dimensions_height IS 'Height of a piece, in dimensions_unit; may be missing.';
COMMENT ON COLUMN bronze.products.dimensions_unit IS 'cm, mm, m or in; other units are unknown to silver.';
