-- gold.dim_date: every day from the first to the last that was loaded.  Reads silver.loaded_days.

CREATE OR REPLACE VIEW gold.dim_date AS
WITH

days AS (
    SELECT generate_series(min(day), max(day), interval '1 day')::date AS date_key
    FROM silver.loaded_days
)

SELECT
    days.date_key,
    extract(YEAR FROM days.date_key)::integer AS year,
    extract(QUARTER FROM days.date_key)::integer AS quarter,
    extract(MONTH FROM days.date_key)::integer AS month,
    to_char(days.date_key, 'FMMonth') AS month_name,
    extract(ISOYEAR FROM days.date_key)::integer AS iso_year,
    extract(WEEK FROM days.date_key)::integer AS iso_week,
    extract(ISODOW FROM days.date_key)::integer AS day_of_week,
    to_char(days.date_key, 'FMDay') AS day_name,
    extract(ISODOW FROM days.date_key) >= 6 AS is_weekend,
    loaded_days.day IS NOT NULL AS is_loaded,
    coalesce(loaded_days.is_current, false) AS is_current
FROM days
LEFT JOIN silver.loaded_days ON loaded_days.day = days.date_key;

COMMENT ON VIEW gold.dim_date IS 'One row per day from the first to the last that was loaded, without gaps.';
COMMENT ON COLUMN gold.dim_date.date_key IS 'The day; facts refer to it.';
COMMENT ON COLUMN gold.dim_date.year IS 'Year.';
COMMENT ON COLUMN gold.dim_date.quarter IS 'Quarter, 1 to 4.';
COMMENT ON COLUMN gold.dim_date.month IS 'Month, 1 to 12.';
COMMENT ON COLUMN gold.dim_date.month_name IS 'Name of the month, in English.';
COMMENT ON COLUMN gold.dim_date.iso_year IS 'The year that the ISO week belongs to.';
COMMENT ON COLUMN gold.dim_date.iso_week IS 'ISO week, 1 to 53.';
COMMENT ON COLUMN gold.dim_date.day_of_week IS 'Day of the week, 1 (Monday) to 7.';
COMMENT ON COLUMN gold.dim_date.day_name IS 'Name of the day, in English.';
COMMENT ON COLUMN gold.dim_date.is_weekend IS 'Whether it is a Saturday or a Sunday.';
COMMENT ON COLUMN gold.dim_date.is_loaded IS 'Whether this day was loaded; facts have no other days.';
COMMENT ON COLUMN gold.dim_date.is_current IS 'Whether it is the day of gold.fact_inventory: the one that was loaded last.';
