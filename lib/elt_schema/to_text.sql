-- elt.to_text: a text without the blanks around it, or NULL where nothing is left.
--
--     SELECT elt.to_text(E' oz\n'), elt.to_text('  ');   -- oz, NULL
--
-- Bound to PostgreSQL's own functions when it is created, as elt.to_number is.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_text(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN nullif(btrim(value, E' \t\r\n'), '');

COMMENT ON FUNCTION elt.to_text(text) IS
    'A text without the spaces, tabs and line ends around it; NULL where nothing is left.';
