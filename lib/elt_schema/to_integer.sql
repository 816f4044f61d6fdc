-- elt.to_integer: a text as a whole number; NULL if it is not one, or does not fit a bigint.  It never fails.
--
--     SELECT elt.to_integer(' 12 '), elt.to_integer('12.0'), elt.to_integer('12.5');   -- 12, 12, NULL
--
-- It reads the same forms as elt.to_number, if nothing but zeros follows the decimal point.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_integer(value text)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN translate(value, '0123456789', '') = '' AND length(value) BETWEEN 1 AND 18 THEN value::bigint
    WHEN
        value ~ '^[ \t\r\n]*[+-]?([0-9]{1,19}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?[ \t\r\n]*$'
        THEN CASE
            WHEN
                value::numeric = trunc(value::numeric)
                AND value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                THEN value::numeric::bigint
        END
END;

COMMENT ON FUNCTION elt.to_integer(text) IS
    'The text as a whole number; NULL if it is not one or does not fit a bigint. Never fails.';
