-- elt.to_key: elt.to_text for a column of a key; NULL also if the text has more than 200 characters.
--
--     SELECT elt.to_key(' A1 '), elt.to_key(repeat('A', 201));   -- A1, NULL
--
-- An index holds at most 2,704 bytes per row.  A key of three texts of 200 characters always fits.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_key(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    -- fast paths: nothing to trim, as in elt.to_text; few bytes are few characters, which need not be counted
    WHEN
        octet_length(value) <= 200
        AND value > '!' COLLATE "C"
        AND value < E'\x7f' COLLATE "C"
        AND abs(ascii(right(value, 1)) - 80) < 47
        THEN value
    WHEN octet_length(value) <= 200 THEN nullif(btrim(value, elt.invisible()), '')
    WHEN length(btrim(value, elt.invisible())) <= 200 THEN nullif(btrim(value, elt.invisible()), '')
END;

COMMENT ON FUNCTION elt.to_key(text) IS
    'The text without the blanks and other invisible characters around it. NULL if nothing is left, or more than 200 characters.';
