-- gold.dim_date: every day from the first loaded day to the last.  Reads silver.loaded_days.

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

COMMENT ON VIEW gold.dim_date IS 'One row per day from the first loaded day to the last, without gaps.';
COMMENT ON COLUMN gold.dim_date.date_key IS 'The day. Facts join by it.';
COMMENT ON COLUMN gold.dim_date.year IS 'Calendar year. With iso_week, use iso_year instead.';
COMMENT ON COLUMN gold.dim_date.quarter IS '1 to 4.';
COMMENT ON COLUMN gold.dim_date.month IS '1 to 12.';
COMMENT ON COLUMN gold.dim_date.month_name IS 'In English, such as January.';
COMMENT ON COLUMN gold.dim_date.iso_year IS 'Year of the ISO week. Around New Year it can differ from year.';
COMMENT ON COLUMN gold.dim_date.iso_week IS '1 to 53, from Monday to Sunday. Use it with iso_year.';
COMMENT ON COLUMN gold.dim_date.day_of_week IS '1 (Monday) to 7 (Sunday).';
COMMENT ON COLUMN gold.dim_date.day_name IS 'In English, such as Monday.';
COMMENT ON COLUMN gold.dim_date.is_weekend IS 'True on Saturday and Sunday.';
COMMENT ON COLUMN gold.dim_date.is_loaded IS 'True if the day was loaded. Facts have no rows of other days.';
COMMENT ON COLUMN gold.dim_date.is_current IS 'True for the day that was loaded last; gold.fact_inventory shows it.';
