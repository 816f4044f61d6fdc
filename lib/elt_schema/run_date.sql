-- elt.run_date: the day that a run loads, the same for all its scripts.
--
--     SELECT elt.run_date();
--
-- The pipeline sets it: to today in the time zone of the settings, or to --date.  In psql it is the session's current
-- date, unless you set another: SET elt.run_date = '2026-01-31';

CREATE OR REPLACE FUNCTION elt.run_date()
RETURNS date
LANGUAGE sql
STABLE
PARALLEL SAFE
RETURN coalesce(nullif(current_setting('elt.run_date', true), '')::date, current_date);

COMMENT ON FUNCTION elt.run_date() IS
    'Day that this run loads: today in the time zone of the settings, or --date. Outside of a run: the session''s current date.';
