-- elt.to_text: a text without the blanks around it; NULL if nothing is left.
--
--     SELECT elt.to_text(E' oz\n'), elt.to_text('  ');   -- oz, NULL
--
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_text(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN nullif(btrim(value, E' \t\r\n'), '');

COMMENT ON FUNCTION elt.to_text(text) IS
    'The text without the spaces, tabs and line ends around it. NULL if nothing is left.';
