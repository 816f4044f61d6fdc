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
    -- fast path: a text of few bytes has few characters, and its bytes need not be counted
    WHEN octet_length(value) <= 200 THEN nullif(btrim(value, E' \t\r\n'), '')
    WHEN length(btrim(value, E' \t\r\n')) <= 200 THEN nullif(btrim(value, E' \t\r\n'), '')
END;

COMMENT ON FUNCTION elt.to_key(text) IS
    'The text without the spaces, tabs and line ends around it. NULL if nothing is left, or more than 200 characters.';
