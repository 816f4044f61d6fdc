-- elt.to_text: a text without the characters around it that nobody sees (elt.invisible); NULL if nothing is left.
--
--     SELECT elt.to_text(E' oz\u00a0\n'), elt.to_text(E' \u200b');   -- oz, NULL
--
-- Fast path: a text that begins and ends with a visible ASCII character is used as it is.  Few operators, because
-- PostgreSQL inlines elt.to_number(elt.to_text(..)) only if elt.to_text has at most ten.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_text(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN
        value > '!' COLLATE "C"
        AND value < E'\x7f' COLLATE "C"
        AND abs(ascii(right(value, 1)) - 80) < 47  -- from " (34) to ~ (126)
        THEN value
    ELSE nullif(btrim(value, elt.invisible()), '')
END;

COMMENT ON FUNCTION elt.to_text(text) IS
    'The text without the blanks and other invisible characters around it. NULL if nothing is left.';
