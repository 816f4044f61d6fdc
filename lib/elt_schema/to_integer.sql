-- elt.to_integer: a text as a whole number; NULL if it is not one, or does not fit a bigint.  It never fails.
--
--     SELECT elt.to_integer(' 12 '), elt.to_integer('12.0'), elt.to_integer('12.5');   -- 12, 12, NULL
--
-- It follows the rule of elt.to_number, with the range of a bigint instead of 18 digits: an id of 19 digits is usual.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_integer(value text)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN translate(value, '0123456789', '') = '' AND length(value) BETWEEN 1 AND 18 THEN value::bigint
    WHEN octet_length(value) <= 1000 AND value ~ '^[+-]?0*[0-9]{1,18}(\.0*)?$' THEN value::numeric::bigint
    WHEN
        octet_length(value) BETWEEN 1 AND 1000
        AND btrim(value, elt.invisible()) ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?0*[0-9]{1,3})?$'
        THEN CASE
            WHEN
                btrim(value, elt.invisible())::numeric = trunc(btrim(value, elt.invisible())::numeric)
                AND btrim(value, elt.invisible())::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                THEN btrim(value, elt.invisible())::numeric::bigint
        END
END;

COMMENT ON FUNCTION elt.to_integer(text) IS
    'The text as a whole number; NULL if it is not one or does not fit a bigint. Never fails.';
