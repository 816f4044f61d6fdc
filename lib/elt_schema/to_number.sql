-- elt.to_number: a text as a number; NULL if it is not one, or has 19 digits or more before the point.  It never fails.
--
--     SELECT elt.to_number(' 12 '), elt.to_number('1.0E-5'), elt.to_number('n/a'), elt.to_number('1e18');
--     -- 12, 0.00001, NULL, NULL
--
-- The rule, which elt.to_integer shares: the value decides, not how it is written.  A sign, zeros before and after the
-- digits, a decimal point and an exponent of up to three digits are allowed, and so are invisible characters around it;
-- no comma, no NaN, no Infinity, no more than 1,000 bytes.  elt.to_number reads every value below 10^18, either sign:
-- at most 18 digits before the point.  elt.to_integer reads every whole value of a bigint.
-- Fast path: all-digit values are valid numbers without the regular expression, five times faster.  Digits with a point
-- skip it, too, and are twice as fast.
-- RETURN binds the body to PostgreSQL's own functions when the function is created.  SET search_path would be as safe,
-- but it prevents inlining and makes the function ten times slower.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_number(value text)
RETURNS numeric
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN translate(value, '0123456789', '') = '' AND length(value) BETWEEN 1 AND 18 THEN value::numeric
    WHEN translate(value, '0123456789', '') = '.' AND length(value) BETWEEN 2 AND 19 THEN trim_scale(value::numeric)
    -- without an exponent, the digits can be counted before they are read
    WHEN octet_length(value) <= 1000 AND value ~ '^[+-]?(0*[0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)$'
        THEN trim_scale(value::numeric)
    WHEN
        octet_length(value) BETWEEN 1 AND 1000
        AND btrim(value, elt.invisible()) ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?0*[0-9]{1,3})?$'
        THEN CASE
            WHEN abs(btrim(value, elt.invisible())::numeric) < 1e18
                THEN trim_scale(btrim(value, elt.invisible())::numeric)
        END
END;

COMMENT ON FUNCTION elt.to_number(text) IS
    'The text as a number without trailing zeros; NULL if it is not a number, or has 19 digits or more before the point. Never fails.';
