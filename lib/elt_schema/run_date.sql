-- elt.run_date: the day that a run loads, the same for all its scripts.
--
--     SELECT elt.run_date();
--
-- The pipeline sets elt.run_date (today in the settings' time zone, or --date); under psql -f it is the session's
-- today, unless the session says otherwise: SET elt.run_date = '2026-01-31';

CREATE OR REPLACE FUNCTION elt.run_date()
RETURNS date
LANGUAGE sql
STABLE
PARALLEL SAFE
RETURN coalesce(nullif(current_setting('elt.run_date', true), '')::date, current_date);

COMMENT ON FUNCTION elt.run_date() IS
    'The day that this run loads: today in the settings'' time zone, or what --date says; elsewhere the session''s today.';
