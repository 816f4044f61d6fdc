-- elt.to_line: elt.to_text with a blank for each line break, so that a CSV file has one line per row.
--
--     SELECT elt.to_line(E' two\nlines ');   -- two lines
--
-- Line breaks are LF, VT, FF, CR, CR LF (as one), and Unicode's NEL, LS, PS.
-- Fast path: a text without a line break that begins and ends with a visible ASCII character is used as it is.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_line(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN value ~ '^[!-~]([^\n\v\f\r\u0085\u2028\u2029]*[!-~])?$' THEN value
    ELSE nullif(
        btrim(regexp_replace(value, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g'), elt.invisible()), ''
    )
END;

COMMENT ON FUNCTION elt.to_line(text) IS
    'The text on one line: a blank for each line break, no invisible characters around it. NULL if nothing is left.';
