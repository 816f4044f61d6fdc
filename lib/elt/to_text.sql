-- elt.to_text: a text without the blanks around it, or NULL where nothing is left.
--
--     SELECT elt.to_text(E' oz\n'), elt.to_text('  ');   -- oz, NULL
--
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_text(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
AS $function$
SELECT nullif(btrim(value, E' \t\r\n'), '')
$function$;

COMMENT ON FUNCTION elt.to_text(text) IS
    'A text without the spaces, tabs and line ends around it; NULL where nothing is left.';
