-- elt.to_date: a text in ISO form as a date; NULL if it is not one.  It never fails.
--
--     SELECT elt.to_date('2026-01-31'), elt.to_date('2026-02-30');   -- 2026-01-31, NULL
--
-- The form is YYYY-MM-DD, for the years 0001 to 9999.  Invisible characters around it are allowed.  A text with a time
-- is no date: use elt.to_timestamp.
-- PostgreSQL 15 has no pg_input_is_valid, and an exception block for each row would be slow.  So the pattern itself
-- knows how many days a month has, leap years included.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_date(value text)
RETURNS date
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN
        value ~ (
            '^[' || elt.invisible() || ']*'
            '(?!0000)([0-9]{4}-('
            '(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])'
            '|(0[13-9]|1[0-2])-(29|30)'
            '|(0[13578]|1[02])-31'
            ')|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)'
            '[' || elt.invisible() || ']*$'
        )
        THEN CASE
            WHEN octet_length(value) = 10
                THEN make_date(
                    substr(value, 1, 4)::integer, substr(value, 6, 2)::integer, substr(value, 9, 2)::integer
                )
            ELSE make_date(
                substr(btrim(value, elt.invisible()), 1, 4)::integer,
                substr(btrim(value, elt.invisible()), 6, 2)::integer,
                substr(btrim(value, elt.invisible()), 9, 2)::integer
            )
        END
END;

COMMENT ON FUNCTION elt.to_date(text) IS 'The text, written as YYYY-MM-DD, as a date; NULL if it is not one. Never fails.';
